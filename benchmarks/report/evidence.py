"""Records sorted by the model they measured: what a report is made from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.expected import MODELS
from benchmarks.report.findings import Curve, Finding, Findings, Loop
from benchmarks.report.kinds import findings_of
from benchmarks.report.records import Certificate, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One record, read. number: by which rows cite it."""

    number: int
    certificate: Certificate
    found: Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvidence:
    """All that is known of one model. name: of its package; about: for people.

    wanted: whether the report says what it has no record of.
    """

    name: str
    about: str
    records: tuple[Evidence, ...]
    wanted: bool = True

    @property
    def gates(self) -> Mapping[str, Any]:
        """What the newest record that knows them says of its package's exam."""
        said = [one.certificate.package.get("gates") for one in self.records]
        return next((gates for gates in reversed(said) if gates), {})

    def findings(self, loop: Loop) -> Iterator[tuple[Evidence, Finding]]:
        """Everything seen in such a loop, with the record it is from."""
        for one in self.records:
            yield from ((one, finding) for finding in one.found.findings if finding.loop == loop)

    def workloads(self, loop: Loop) -> list[str]:
        """Those that were loaded so, in the order they were."""
        return list(dict.fromkeys(finding.workload for _, finding in self.findings(loop)))

    def why_missing(self, loop: Loop, system: str) -> str:
        """Why *system* has no number, in the newest record that says so."""
        said = [one.found.missing.get((loop, system)) for one in self.records]
        return next((why for why in reversed(said) if why), "")

    def curves(self) -> Iterator[tuple[Evidence, Curve]]:
        """Every latency-over-rate curve, with the record it is from."""
        for one in self.records:
            yield from ((one, curve) for curve in one.found.curves)


def gather(records: Sequence[Record]) -> tuple[Evidence, ...]:
    """Read them; numbered from 1 by the time they were made. Raises `NoRecord`."""
    ordered = sorted(records, key=lambda r: (r.certificate.recorded_at, r.certificate.name))
    return tuple(
        Evidence(number=number, certificate=record.certificate, found=findings_of(record))
        for number, record in enumerate(ordered, start=1)
    )


def by_model(evidence: Sequence[Evidence]) -> tuple[ModelEvidence, ...]:
    """The models that the report wants, then the others there are records of.

    A record that does not name its package has the name that another says of the same digest.
    """
    names = {
        one.certificate.package_digest: str(one.certificate.package["name"])
        for one in evidence
        if one.certificate.package.get("name")
    }
    groups: dict[str, list[Evidence]] = {name: [] for name in MODELS}
    for one in evidence:
        digest = one.certificate.package_digest
        groups.setdefault(names.get(digest, f"package {digest[:12]}"), []).append(one)
    return tuple(
        ModelEvidence(
            name=name, about=_about(name, found), records=tuple(found), wanted=name in MODELS
        )
        for name, found in groups.items()
    )


def _about(name: str, found: Sequence[Evidence]) -> str:
    said = [one.certificate.package.get("base_model") for one in found]
    base = next(filter(None, said), None)
    return MODELS.get(name) or (f"{name}: {base}" if base else name)
