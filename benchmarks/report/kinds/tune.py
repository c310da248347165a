"""`miniml bench tune`: the highest rate that each setting of the server held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings, number_of_samples
from benchmarks.report.kinds.rows import trial_of


def tune_findings(document: Mapping[str, Any]) -> Findings:
    """A finding for each setting that held the goal at some rate."""
    scenario, best = document["scenario"], document["best"]
    goal_ms = document["goal"]["p99_ms"]
    found = []
    for contest in document["contests"]:
        rate_per_s = contest["rate_per_s"]
        if not rate_per_s:
            continue
        chosen = contest["setting"] == best
        trials = [
            trial_of(trial, rate_per_s=trial["rate_per_s"], held=trial["held"])
            for trial in contest["trials"]
            if trial["rate_per_s"] == rate_per_s
        ]
        found.append(
            Finding(
                system=f"miniml, {_setting(contest['setting'])}",
                workload=scenario["workload"],
                loop="open",
                setting=f"p99 within {goal_ms:g} ms, {contest['stage']}",
                rates=(rate_per_s * scenario.get("texts_per_call", 1),),
                trials=tuple(trials),
                goal_ms=goal_ms,
                note="chosen" if chosen else "",
            )
        )
    return Findings(findings=tuple(found), samples=number_of_samples(found, []))


def _setting(setting: Mapping[str, Any]) -> str:
    lanes = f"{setting['lanes']} x {setting['threads']}" if setting["lanes"] else "lanes by itself"
    return f"{lanes}, batches to {setting['max_batch']}, queue {setting['max_queue_ms']:g} ms"
