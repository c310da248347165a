"""What one load leaves behind: samples first, everything else derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from benchmarks.bottleneck import client_fault, rate_fault
from benchmarks.record import SCHEMA_VERSION, commit, machine, now, versions, write_document
from benchmarks.schedule import Shape, Stage, level_at, stages
from benchmarks.wire import NO_ANSWER, WireRun

_INSTANT_S = 1e-6  # before its end a stage is still at its own level
_COLUMNS = ("s", "asked", "sent", "errors", "texts/s", "p50", "p95", "p99", "max")
_KEYS = ("requests", "errors", "texts_per_s")
_MS_KEYS = ("p50_ms", "p95_ms", "p99_ms", "max_ms")


def summary(run: WireRun) -> dict[str, Any]:
    """Rates and latencies of *run*, those of requests that were answered with 200."""
    numbers: dict[str, Any] = {
        "requests": len(run.shots),
        "errors": sum(run.errors.values()),
        "errors_by_status": {status_name(status): n for status, n in sorted(run.errors.items())},
        "requests_per_s": round(run.requests_per_s, 2),
        "texts_per_s": round(run.texts_per_s, 2),
    }
    if run.latencies_ms:
        numbers |= {f"p{p}_ms": round(run.percentile_ms(p), 3) for p in (50, 95, 99)}
        numbers["max_ms"] = round(run.percentile_ms(100), 3)
    return numbers


def status_name(status: int) -> str:
    """A status of HTTP, or that there was none."""
    return "no answer" if status == NO_ANSWER else str(status)


def run_document(run: WireRun) -> dict[str, Any]:
    """*run* for JSON; samples as [sent_s, latency_ms, status, late_ms] rows, -1 for never sent."""
    return {
        "warmup_s": run.warmup_s,
        "duration_s": round(run.duration_s, 3),
        "partial": run.interrupted,
        "client": {
            "cpu_s": round(run.client_cpu_s, 3),
            "most_core_share": round(run.client_core_share, 3),
            "lag_p99_ms": run.client_lag_ms,
            "lags_ms": [list(client.lags_ms) for client in run.clients],
            "fault": client_fault(run),
        },
        "samples": [
            [
                round(shot.sent_s, 4),
                round(shot.latency_ms, 3),
                shot.status,
                round(shot.late_ms, 2) if shot.late_ms < float("inf") else -1,
            ]
            for shot in run.shots
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load of one endpoint.

    level: requests/s asked for in an open loop, users in a closed one, where the rate is a result
    and not a choice. The run's samples are those after the warm-up only.
    """

    run: WireRun
    level: float
    loop: Literal["open", "closed"]
    shape: Shape
    scenario: Mapping[str, Any]
    package_digest: str
    server: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)
    schema_version: int = SCHEMA_VERSION

    @property
    def stages(self) -> list[tuple[Stage, WireRun]]:
        """What was asked for and what was seen, stage by stage; a ramp in as many as steps."""
        shown: Shape = "steps" if self.shape == "ramp" else self.shape
        return self._cut(shown)

    @property
    def faults(self) -> list[str]:
        """Why the numbers may not be the server's, a sentence each."""
        found = [f"{fault}." for fault in [client_fault(self.run)] if fault]
        if self.loop == "open":
            found += [
                f"The rate was not delivered: {fault}."
                for fault in map(_fault, self._planned())
                if fault
            ]
        if self.run.interrupted:
            found.append(f"Interrupted after {self.run.duration_s:.1f} s of measuring.")
        return [fault[0].upper() + fault[1:] for fault in found]

    def _planned(self) -> list[tuple[Stage, WireRun]]:
        return self._cut(self.shape)

    def _cut(self, shape: Shape) -> list[tuple[Stage, WireRun]]:
        """The load in the stages of *shape*, which may be finer than its own."""
        warmup_s, duration_s = self.run.warmup_s, self.scenario["duration_s"]
        own = stages(self.shape, self.level, warmup_s=warmup_s, duration_s=duration_s)
        seen_s = warmup_s + self.run.duration_s
        found = []
        for edge in stages(shape, self.level, warmup_s=warmup_s, duration_s=duration_s):
            if warmup_s <= edge.begin_s < seen_s:
                end_s = min(edge.end_s, seen_s)
                stage = Stage(
                    begin_s=edge.begin_s,
                    end_s=end_s,
                    first=level_at(own, edge.begin_s),
                    last=level_at(own, end_s - _INSTANT_S),
                )
                found.append((stage, self.run.window(stage.begin_s, stage.end_s)))
        return found

    def document(self) -> dict[str, Any]:
        """The whole record."""
        return {
            "kind": "load",
            "schema_version": self.schema_version,
            "loop": self.loop,
            "scenario": dict(self.scenario),
            "package_digest": self.package_digest,
            "server": dict(self.server),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "commit": self.commit,
            "recorded_at": self.recorded_at,
            "summary": summary(self.run) | {"sent_per_s": round(self.run.sent_per_s, 2)},
            "stages": [
                {"begin_s": stage.begin_s, "end_s": stage.end_s, "first": stage.first}
                | {"last": stage.last, **summary(run)}
                for stage, run in self.stages
            ],
            "faults": self.faults,
            **run_document(self.run),
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)

    def __rich__(self) -> Table:
        """A row for each stage, and what is wrong with it."""
        asked = "requests a second" if self.loop == "open" else "users"
        table = Table(
            title=f"{self.loop} loop, {self.scenario['workload']}; {asked} asked for, latency in ms",
            title_justify="left",
            caption="\n".join(self.faults) or None,
            caption_justify="left",
        )
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        for stage, run in self.stages:
            numbers = summary(run)
            asked = f"{stage.first:g}"
            if stage.first != stage.last:
                asked = f"{stage.first:.3g} to {stage.last:.3g}"
            cells = (_cell(numbers.get(key)) for key in (*_KEYS, *_MS_KEYS))
            table.add_row(f"{stage.end_s - stage.begin_s:.1f}", asked, *cells)
        return table


def _fault(found: tuple[Stage, WireRun]) -> str:
    stage, run = found
    return rate_fault(run, stage.area / (stage.end_s - stage.begin_s))


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
