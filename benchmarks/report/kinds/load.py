"""`miniml bench load`: one load of one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings
from benchmarks.report.kinds.rows import trial_of
from benchmarks.report.numbers import a_call, counted


def load_findings(document: Mapping[str, Any]) -> Findings:
    """One finding with one trial."""
    scenario, loop = document["scenario"], document["loop"]
    if loop not in ("open", "closed"):
        raise ValueError(f"a loop is open or closed, not {loop!r}")
    rate_per_s = scenario["rate_per_s"] if loop == "open" else None
    if rate_per_s is None:
        asked = counted(scenario["users"], "connection")
    else:
        asked = f"{rate_per_s:g} requests/s"
    if (shape := scenario.get("shape", "steady")) != "steady":
        asked = f"{shape} to {asked}"
    trial = trial_of(document, rate_per_s=rate_per_s)
    finding = Finding(
        system="miniml",
        workload=scenario["workload"],
        loop=loop,
        setting=asked + a_call(scenario["texts_per_call"]),
        rates=(trial.texts_per_s,),
        trials=(trial,),
        note="; ".join(document.get("faults", ())),
    )
    return Findings(findings=(finding,), samples=finding.samples)
