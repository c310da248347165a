"""`miniml bench engine`: a package beside the plain ways to run its checkpoint, without HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings
from benchmarks.report.numbers import counted

_OURS = "package"


def engine_findings(document: Mapping[str, Any]) -> Findings:
    """A finding a backend; the ceiling is what the measured int8 peak would give."""
    scenario, gop = document["scenario"], document["gop_per_text"]
    peak_per_s = document["peak"]["gops"] / gop
    found = [
        Finding(
            system=f"miniml ({document['precision']})" if backend == _OURS else backend,
            workload=f"texts of {scenario['mean_tokens']:g} tokens in the mean",
            loop="engine",
            setting=f"{counted(scenario['threads'], 'thread')}, batches of {scenario['batch']}",
            rates=tuple(rates),
            ceiling_per_s=peak_per_s,
            ours=backend == _OURS,
        )
        for backend, rates in document["rates"].items()
    ]
    return Findings(findings=tuple(found), samples=sum(len(one.rates) for one in found))
