"""What a search leaves behind: every trial with its samples, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.bottleneck import client_fault
from benchmarks.record import (
    SCHEMA_VERSION,
    commit,
    machine,
    now,
    percentile,
    versions,
    write_document,
)
from benchmarks.slo.search import Estimate, estimate, knee
from benchmarks.slo.trials import Goal, SloTrial

_PERCENTS = (50, 95, 99, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """All trials of one rate. latencies_ms: of all of them, answered with 200."""

    rate_per_s: float
    trials: int
    held: int
    errors: int
    latencies_ms: Sequence[float]

    def document(self) -> dict[str, Any]:
        """Percentiles of all samples together."""
        percentiles = {
            f"p{percent}_ms": round(percentile(self.latencies_ms, percent), 3)
            for percent in _PERCENTS
            if self.latencies_ms
        }
        return {
            "rate_per_s": self.rate_per_s,
            "trials": self.trials,
            "held": self.held,
            "errors": self.errors,
            **percentiles,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SloRecord:
    """trials: in their order. settled: the search ended because nothing was left to learn."""

    goal: Goal
    trials: Sequence[SloTrial]
    settled: bool
    partial: bool
    scenario: Mapping[str, Any]
    package_digest: str
    server: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)
    schema_version: int = SCHEMA_VERSION

    @property
    def estimate(self) -> Estimate:
        """Of the highest rate that keeps the goal, from the trials of the search."""
        return estimate([trial.tried for trial in self.trials if trial.role == "search"])

    @property
    def curve(self) -> list[CurvePoint]:
        """Latency by rate, ascending."""
        by_rate: dict[float, list[SloTrial]] = {}
        for trial in self.trials:
            by_rate.setdefault(trial.rate_per_s, []).append(trial)
        return [
            CurvePoint(
                rate_per_s=rate,
                trials=len(trials),
                held=sum(not trial.miss for trial in trials),
                errors=sum(sum(trial.run.errors.values()) for trial in trials),
                latencies_ms=[ms for trial in trials for ms in trial.run.latencies_ms],
            )
            for rate, trials in sorted(by_rate.items())
        ]

    @property
    def knee_per_s(self) -> float | None:
        """Where latency begins to cost more than rate gains; of rates without errors."""
        found = [
            (point.rate_per_s, percentile(point.latencies_ms, 99))
            for point in self.curve
            if point.latencies_ms and not point.errors
        ]
        return knee(found)

    @property
    def client_faults(self) -> list[str]:
        """Trials whose client may be what was measured."""
        faults = ((trial.rate_per_s, client_fault(trial.run)) for trial in self.trials)
        return [f"At {rate:.1f} requests/s {fault}." for rate, fault in faults if fault]

    def document(self) -> dict[str, Any]:
        """The whole record."""
        return {
            "kind": "slo",
            "schema_version": self.schema_version,
            "loop": "open",
            "goal": {"p99_ms": self.goal.p99_ms, "errors": 0},
            "result": self.result(),
            "partial": self.partial,
            "scenario": dict(self.scenario),
            "package_digest": self.package_digest,
            "server": dict(self.server),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "commit": self.commit,
            "recorded_at": self.recorded_at,
            "curve": [point.document() for point in self.curve],
            "client_faults": self.client_faults,
            "trials": [trial.document() for trial in self.trials],
        }

    def result(self) -> dict[str, Any]:
        """The answer, in numbers."""
        found = self.estimate
        never = None if math.isinf(found.never_per_s) else found.never_per_s
        return {
            "rate_per_s": found.rate_per_s,
            "texts_per_s": found.rate_per_s * self.scenario["texts_per_call"],
            "always_per_s": found.always_per_s,
            "never_per_s": never,
            "knee_per_s": self.knee_per_s,
            "settled": self.settled,
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)

    def __rich__(self) -> Table:
        """A row for each rate, and the answer below."""
        table = Table(
            title=f"open loop, {self.scenario['workload']}, p99 at most {self.goal.p99_ms:g} ms;"
            " latency in ms",
            title_justify="left",
            caption="\n".join(self._sentences()),
            caption_justify="left",
        )
        for name in ("requests/s", "held", "errors", "p50", "p95", "p99", "max"):
            table.add_column(name, justify="right")
        for point in self.curve:
            shown = (
                [f"{percentile(point.latencies_ms, p):.1f}" for p in _PERCENTS]
                if (point.latencies_ms)
                else ["-"] * len(_PERCENTS)
            )
            held = f"{point.held} of {point.trials}"
            table.add_row(f"{point.rate_per_s:.1f}", held, str(point.errors), *shown)
        return table

    def _sentences(self) -> list[str]:
        found, per_call = self.estimate, self.scenario["texts_per_call"]
        texts = "" if per_call == 1 else f" of {per_call} texts"
        said = [f"Highest rate: {found.rate_per_s:.1f} requests/s{texts}."]
        never = f"; none from {found.never_per_s:.1f}" if not math.isinf(found.never_per_s) else ""
        said.append(f"Every trial held up to {found.always_per_s:.1f}{never}.")
        if self.knee_per_s:
            said.append(f"Knee, where rate / p99 is greatest: {self.knee_per_s:.1f}.")
        if self.partial:
            said.append("Interrupted: this is what was known by then.")
        elif not self.settled:
            said.append("The trials ran out before the search was over: the rate is a first guess.")
        return said + self.client_faults
