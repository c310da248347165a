"""The page beside the record: one self-contained file of figures and the numbers under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.pages import render, write_whole
from benchmarks.planning.figures import (
    latency_figure,
    length_figure,
    saturation_figure,
    shown_share,
)
from benchmarks.planning.record import OURS, PlannerRecord, PlannerRun
from benchmarks.planning.tables import COLUMNS, decision_line, named


def write_page(record: PlannerRecord, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    return write_whole(render_page(record), path)


def render_page(record: PlannerRecord) -> str:
    """The page; everything in it that comes from a file is escaped."""
    return render(
        "benchmarks.planning",
        record=record,
        headings=[heading for heading, _, _ in COLUMNS],
        workloads=[_workload(record, name) for name in record.tokens],
        decision=decision_line(record),
    )


def _workload(record: PlannerRecord, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "texts": len(record.tokens[name]),
        "ceiling": record.offline_texts_per_s[name],
        "share": shown_share(record, name),
        "latency": latency_figure(record, name),
        "saturation": saturation_figure(record, name),
        "length": length_figure(record, name),
        "open": [_row(record, run) for run in record.of(name, "open")],
        "closed": [_row(record, run) for run in record.of(name, "closed")],
    }


def _row(record: PlannerRecord, run: PlannerRun) -> dict[str, Any]:
    found = record.summary(run)
    return {
        "ours": run.policy == OURS,
        "share": found["of_offline"] if run.share is None else run.share,
        "policy": named(run),
        "cells": [f"{found[key]:,.{digits}f}" for _, key, digits in COLUMNS],
    }
