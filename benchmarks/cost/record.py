"""What `miniml cost` finds: what each type costs a million texts, and from when a GPU pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rich.console import Group

from benchmarks.cost.model import BreakEven, Fleet, break_even, rate_to_match
from benchmarks.cost.prices import Instance, PriceTable
from benchmarks.report.findings import Finding
from benchmarks.report.records import Certificate

Basis = Literal["measured", "assumed", "given", "not measured"]
BASES: Mapping[Basis, str] = {
    "measured": "on a machine with this GPU",
    "assumed": "the record's rate times this type's vCPUs over the record's cores, whatever the chip",
    "given": "as said with --gpu-rate",
    "not measured": "no record of a GPU, and no --gpu-rate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one instance can do. rate_per_s: texts within the goal; None where nobody measured it."""

    instance: Instance
    rate_per_s: float | None
    basis: Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A type with what it costs; *fleet* is None where it is not known what it can do."""

    capacity: Capacity
    fleet: Fleet | None

    @property
    def name(self) -> str:
        """Of the type."""
        return self.capacity.instance.name


@dataclass(frozen=True)
class CostReport:
    """rows: by what a text costs on them, what is not known last. used: share, on average."""

    certificate: Certificate
    finding: Finding
    prices: PriceTable
    capacities: Sequence[Capacity]
    used: float
    at_least: int

    @cached_property
    def rows(self) -> list[Priced]:
        """Every type."""
        rows = [Priced(capacity=each, fleet=self._fleet(each)) for each in self.capacities]
        return sorted(rows, key=lambda row: row.fleet.full_usd if row.fleet else float("inf"))

    def _fleet(self, capacity: Capacity) -> Fleet | None:
        if capacity.rate_per_s is None:
            return None
        return Fleet(
            usd_per_hour=capacity.instance.usd_per_hour,
            rate_per_s=capacity.rate_per_s,
            used=self.used,
            at_least=self.at_least,
        )

    @property
    def cheapest_cpu(self) -> Priced | None:
        """Without a GPU, by what a text costs."""
        return next((row for row in self.rows if row.fleet and not row.capacity.instance.gpu), None)

    def break_even(self, row: Priced) -> BreakEven | None:
        """Of a GPU's type against the cheapest CPU; None where it does not pay, or is not known."""
        cpu = self.cheapest_cpu
        if not (cpu and cpu.fleet and row.fleet and row.capacity.instance.gpu):
            return None
        return break_even(cpu.fleet, row.fleet)

    def must_do_per_s(self, row: Priced) -> float | None:
        """Texts/s at which a GPU's type would cost as much a text as the cheapest CPU."""
        cpu = self.cheapest_cpu
        if not (cpu and cpu.fleet and row.capacity.instance.gpu):
            return None
        return rate_to_match(row.capacity.instance.usd_per_hour, cpu.fleet)

    def document(self) -> dict[str, Any]:
        """Numbers with where each is from."""
        return {
            "kind": "cost",
            "record": {
                "name": self.certificate.name,
                "kind": self.certificate.kind,
                "recorded_at": self.certificate.recorded_at,
                "commit": self.certificate.commit,
                "package_digest": self.certificate.package_digest,
                "machine": dict(self.certificate.machine),
            },
            "measured": {
                "workload": self.finding.workload,
                "setting": self.finding.setting,
                "loop": self.finding.loop,
                "goal_ms": self.finding.goal_ms,
                "texts_per_s": self.finding.rate,
            },
            "utilisation": self.used,
            "at_least": self.at_least,
            "prices": {
                "as_of": self.prices.as_of,
                "region": self.prices.region,
                "sources": dict(self.prices.sources),
            },
            "instances": [self._row(row) for row in self.rows],
        }

    def _row(self, row: Priced) -> dict[str, Any]:
        instance, fleet, found = row.capacity.instance, row.fleet, self.break_even(row)
        return {
            "name": instance.name,
            "vcpus": instance.vcpus,
            "chip": instance.chip,
            "gpu": instance.gpu or None,
            "usd_per_hour": instance.usd_per_hour,
            "price_source": instance.source,
            "texts_per_s": row.capacity.rate_per_s,
            "texts_per_s_basis": row.capacity.basis,
            "usd_per_million_texts": fleet and fleet.full_usd,
            "break_even_texts_per_s": found and found.always_per_s,
            "first_cheaper_texts_per_s": found and found.first_per_s,
            "must_do_texts_per_s": self.must_do_per_s(row),
        }

    def __rich__(self) -> Group:
        from benchmarks.cost.tables import as_tables

        return as_tables(self)
