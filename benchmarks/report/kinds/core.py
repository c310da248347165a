"""`miniml bench core`: the serving core beside its own engine, with the goals of each figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.core.measures import Measure, ceiling, derive
from benchmarks.report.findings import Finding, Findings, GoalLine
from benchmarks.report.numbers import counted

# As the core benchmark loads it; its own table names them "32 x 1 text" and "8 x 32 texts".
_LOADS = {
    "closed_texts_per_s": "32 connections",
    "calls_texts_per_s": "8 connections, 32 texts a call",
}
_COSTED = "closed_texts_per_s"  # the load in which the server's CPU time was taken


def core_findings(document: Mapping[str, Any]) -> Findings:
    """The engine and two closed loops of each workload, and every line of the record's own table."""
    seen = document["seen"]
    found = [
        finding
        for workload in document["scenario"]["workloads"]
        for finding in _of_workload(seen, workload, document["lanes"])
    ]
    measures = derive(seen)
    return Findings(
        findings=tuple(found),
        goal_lines=tuple(map(_goal_line, measures)),
        samples=sum(len(values) for by in seen.values() for values in by.values()),
    )


def _of_workload(
    seen: Mapping[str, Mapping[str, Any]], workload: str, lanes: Mapping[str, int]
) -> list[Finding]:
    def of(what: str, of_workload: str = workload) -> tuple[float, ...]:
        return tuple(seen.get(what, {}).get(of_workload, ()))

    engine = Finding(
        system="miniml",
        workload=workload,
        loop="engine",
        setting=f"{counted(lanes['count'], 'lane')} of {counted(lanes['threads'], 'thread')},"
        " best batch",
        rates=tuple(ceiling(seen, workload)),
    )
    loads = [
        Finding(
            system="miniml",
            workload=workload,
            loop="closed",
            setting=setting,
            rates=of(name),
            ceiling_per_s=engine.rate,
            cpu_ms=of("server_cpu_ms") if name == _COSTED else (),
            memory_mb=max(of("replica_mb", ""), default=None),
        )
        for name, setting in _LOADS.items()
    ]
    return [finding for finding in (engine, *loads) if finding.rates]


def _goal_line(measure: Measure) -> GoalLine:
    # "ms" without a goal, like a latency, is less for the better as well.
    return GoalLine(
        name=measure.name,
        workload=measure.workload,
        values=measure.values,
        less_is_better=measure.at_most or " ms" in measure.name,
        goal=measure.goal,
        held=measure.held,
        digits=measure.digits,
    )
