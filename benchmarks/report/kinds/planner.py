"""`miniml bench planner`: policies of batching on the same arrivals, in a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.findings import OK, Finding, Findings, Loop, Trial, number_of_samples
from benchmarks.report.numbers import counted

_OURS = "ours"
_LOOPS: Mapping[str, Loop] = {"open": "simulated open", "closed": "simulated closed"}


def planner_findings(document: Mapping[str, Any]) -> Findings:
    """A finding a policy and load; the ceiling is the offline one."""
    scenario = document["scenario"]
    found = [
        Finding(
            system=_name(run),
            workload=run["workload"],
            loop=_LOOPS[run["loop"]],
            setting=f"{_asked(run, scenario)}, {counted(scenario['lanes'], 'lane')}",
            rates=(trial.texts_per_s,),
            trials=(trial,),
            ceiling_per_s=document["offline_texts_per_s"][run["workload"]],
            ours=run["policy"] == _OURS,
        )
        for run in document["runs"]
        for trial in [_trial(run)]
    ]
    return Findings(findings=tuple(found), samples=number_of_samples(found, []))


def _name(run: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (run["policy"], run["parameter"])))


def _asked(run: Mapping[str, Any], scenario: Mapping[str, Any]) -> str:
    if run["loop"] == "closed":
        return counted(scenario["callers"], "caller")
    return f"arrivals at {run['share_of_offline']:g} of the ceiling"


def _trial(run: Mapping[str, Any]) -> Trial:
    arrived_s: Sequence[float] = run["arrived_s"]
    latencies_ms = [
        queue + batch for queue, batch in zip(run["queue_ms"], run["batch_ms"], strict=True)
    ]
    ends_s = (at_s + ms / 1e3 for at_s, ms in zip(arrived_s, latencies_ms, strict=True))
    duration_s = max(ends_s)
    return Trial(
        round=0,
        rate_per_s=None,
        begin_s=0.0,
        duration_s=duration_s,
        texts_per_s=len(latencies_ms) / duration_s,
        sent_s=tuple(arrived_s),
        latencies_ms=tuple(latencies_ms),
        statuses=(OK,) * len(latencies_ms),
    )
