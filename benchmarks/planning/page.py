"""The page beside the record: one self-contained file of figures and the numbers under them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.planning.figures import (
    latency_figure,
    length_figure,
    saturation_figure,
    shown_share,
)
from benchmarks.planning.record import OURS, PlannerRecord, PlannerRun
from benchmarks.planning.tables import COLUMNS, decision_line, named

_TEMPLATE = "page.html.j2"


def write_page(record: PlannerRecord, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    part = path.with_suffix(".part")
    part.write_text(render_page(record), encoding="utf-8")
    return part.replace(path)


def render_page(record: PlannerRecord) -> str:
    """The page; everything in it that comes from a file is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("benchmarks.planning").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
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
