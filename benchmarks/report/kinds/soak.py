"""`miniml bench soak`: a steady load for long, and what grew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings, GoalLine
from benchmarks.report.kinds.rows import trial_of


def soak_findings(document: Mapping[str, Any]) -> Findings:
    """One finding with one trial, and what must not grow, or be."""
    scenario, result = document["scenario"], document["result"]
    trial = trial_of(document, rate_per_s=document["rate_per_s"])
    finding = Finding(
        system="miniml",
        workload=scenario["workload"],
        loop="open",
        setting=f"{document['rate_per_s']:.1f} requests/s, {scenario['share']:.0%} of the closed"
        f" loop, for {scenario['minutes']:g} min",
        rates=(trial.texts_per_s,),
        trials=(trial,),
        server_memory_mb=max(
            map(sum, zip(*document["memory"]["pss_mb"].values(), strict=True)), default=None
        ),
        note="; ".join(document["faults"]),
    )
    growths = {
        "own memory, last fifth over the first, %": (
            result["memory_growth"],
            100 * result["most_growth"],
        ),
        "PSS, which neighbours move, the same, %": (result["pss_growth"], None),
    }
    lines = [
        _line(name, scenario["workload"], 100 * grown, goal)
        for name, (grown, goal) in growths.items()
        if grown is not None
    ]
    errors = _line("requests not answered with 200", scenario["workload"], result["errors"], 0)
    return Findings(
        findings=(finding,), goal_lines=(*lines, errors), samples=len(trial.latencies_ms)
    )


def _line(name: str, workload: str, value: float, goal: float | None) -> GoalLine:
    return GoalLine(
        name=name,
        workload=workload,
        values=(value,),
        less_is_better=True,
        goal=goal,
        held=None if goal is None else value <= goal,
    )
