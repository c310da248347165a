"""`miniml bench cache`: what known answers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Finding, Findings


def cache_findings(document: Mapping[str, Any]) -> Findings:
    """A finding a way: every answer computed, every answer known, texts as callers repeat them."""
    scenario = document["scenario"]
    found = [
        Finding(
            system=f"miniml, answers {way}" if way != "zipf" else "miniml, some answers known",
            workload=scenario["workload"],
            loop="closed",
            setting=f"{scenario['connections']} connections, the cache",
            rates=tuple(rates),
        )
        for way, rates in document["rates"].items()
    ]
    return Findings(findings=tuple(found), samples=sum(len(one.rates) for one in found))
