"""`miniml bench slo`: the highest rate that keeps a goal, and the curve below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Curve, Finding, Findings, number_of_samples
from benchmarks.report.kinds.rows import trial_of
from benchmarks.report.numbers import a_call

_PERCENT = 99.0


def slo_findings(document: Mapping[str, Any]) -> Findings:
    """The answer with all trials at its rate, and every trial as a curve."""
    scenario, result = document["scenario"], document["result"]
    goal_ms, texts = document["goal"]["p99_ms"], scenario["texts_per_call"]
    trials = tuple(
        trial_of(trial, rate_per_s=trial["rate_per_s"], held=trial["held"])
        for trial in document["trials"]
    )
    never = result["never_per_s"]
    rate_per_s = _surest(result)
    curve = Curve(
        system="miniml",
        workload=scenario["workload"],
        goal_ms=goal_ms,
        percent=_PERCENT,
        trials=trials,
        highest=(rate_per_s,),
        knee_per_s=result["knee_per_s"],
        bounds=(result["always_per_s"], float("inf") if never is None else never),
    )
    finding = Finding(
        system="miniml",
        workload=scenario["workload"],
        loop="open",
        setting=f"p{_PERCENT:g} within {goal_ms:g} ms{a_call(texts)}",
        rates=(texts * rate_per_s,),
        reach=None if never is None else (texts * result["always_per_s"], texts * never),
        trials=tuple(trial for trial in trials if trial.rate_per_s == rate_per_s),
        goal_ms=goal_ms,
        note="" if result["settled"] else "search not finished",
    )
    return Findings(
        findings=(finding,), curves=(curve,), samples=number_of_samples([finding], [curve])
    )


def _surest(result: Mapping[str, Any]) -> float:
    """The rate found. Of a search that ran out of trials: where every trial held, if any did."""
    if result["settled"] or not result["always_per_s"]:
        return float(result["rate_per_s"])
    return float(result["always_per_s"])
