"""`miniml bench backends`: ways to run one checkpoint, without HTTP and, when asked, behind servers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from benchmarks.peers.checking import LabelAgreement
from benchmarks.report.findings import Finding, Findings, Loop, number_of_samples
from benchmarks.report.kinds.peers import closed_finding, read_run
from benchmarks.report.numbers import counted

_OURS = " package: "  # in the name of a variant that is a package of miniml


def backends_findings(document: Mapping[str, Any]) -> Findings:
    """A finding a variant and workload, on its best layout, and one for each served variant."""
    found = [_engine(document, one) for one in document["speeds"] if one["best_layout"]]
    found += _served(document)
    missing: dict[tuple[Loop, str], str] = {
        ("engine", name): why for name, why in document["missing"].items()
    }
    return Findings(
        findings=tuple(found),
        missing=missing,
        samples=number_of_samples([f for f in found if f.trials], []) + _grid_samples(document),
    )


def _engine(document: Mapping[str, Any], speed: Mapping[str, Any]) -> Finding:
    name, layout = speed["variant"], speed["layout"]
    memory = [run["peak_rss_bytes"] / 1e6 for run in document["runs"] if run["variant"] == name]
    return Finding(
        system=name,
        workload=speed["workload"],
        loop="engine",
        setting=f"{counted(layout['lanes'], 'lane')} of {counted(layout['threads'], 'thread')},"
        f" batches of {speed['batch']}",
        rates=tuple(speed["rates"]),
        ceiling_per_s=speed["ceiling_texts_per_s"],
        agreement=_agreement(document, name),
        memory_mb=max(memory, default=None),
        ours=_OURS in name,
    )


def _served(document: Mapping[str, Any]) -> list[Finding]:
    def load(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["peer"], row["workload"]

    connections = document["scenario"]["connections"]
    return [
        closed_finding(
            [read_run(row) for row in rows],
            connections,
            _agreement(document, name),
            ours=_OURS in name,
        )
        for (name, _), rows in groupby(sorted(document["http_runs"], key=load), key=load)
    ]


def _agreement(document: Mapping[str, Any], name: str) -> LabelAgreement | None:
    """The worse of alone and in company."""
    if (said := document["answers"].get(name)) is None:
        return None
    return LabelAgreement(agreed=min(said["alone"], said["together"]), asked=said["asked"])


def _grid_samples(document: Mapping[str, Any]) -> int:
    return sum(len(ms) for run in document["runs"] for _, _, ms in run["samples_ms"])
