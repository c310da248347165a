"""`miniml bench offline`: whole runs over files, whose ceiling is the bare engine around them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings, GoalLine
from benchmarks.report.numbers import counted


def offline_findings(document: Mapping[str, Any]) -> Findings:
    """One finding, and the share of the engine with its goal."""
    scenario, rounds = document["scenario"], document["rounds"]
    engine = [each[when]["texts_per_s"] for each in rounds for when in ("before", "after")]
    rates = tuple(each["offline"]["texts_per_s"] for each in rounds)
    shares = tuple(
        rate / statistics.fmean((each["before"]["texts_per_s"], each["after"]["texts_per_s"]))
        for rate, each in zip(rates, rounds, strict=True)
    )
    finding = Finding(
        system="miniml predict --output",
        workload=scenario["workload"],
        loop="engine",
        setting=f"{scenario['rows']:,} rows of Parquet, {counted(scenario['lanes'], 'lane')}",
        rates=rates,
        ceiling_per_s=statistics.median(engine),
    )
    share = GoalLine(
        name="offline, share of the bare engine",
        workload=scenario["workload"],
        values=shares,
        less_is_better=False,
        goal=document["goal"],
        held=statistics.median(shares) >= document["goal"],
        digits=3,
    )
    return Findings(findings=(finding,), goal_lines=(share,), samples=len(rounds))
