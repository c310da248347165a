"""The page beside the record: one self-contained file of figures and the numbers under them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import render, write_whole
from benchmarks.scaling.figures import price_figure, replicas_figure
from benchmarks.scaling.record import OURS, ScalingRecord
from benchmarks.scaling.tables import COLUMNS, ratio_line


def write_page(record: ScalingRecord, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    return write_whole(render_page(record), path)


def render_page(record: ScalingRecord) -> str:
    """The page; everything in it that comes from a file is escaped."""
    return render(
        "benchmarks.scaling",
        record=record,
        headings=[heading for heading, _, _ in COLUMNS],
        traces=[
            {
                "name": trace.name,
                "replicas": replicas_figure(record, trace),
                "price": price_figure(record, trace),
                "ratio": ratio_line(record, place),
                "rows": [
                    {
                        "ours": run.policy == OURS,
                        "name": run.name,
                        "cells": [
                            f"{run.summary()[key]:,.{digits}f}" for _, key, digits in COLUMNS
                        ],
                    }
                    for run in record.of(trace)
                ],
            }
            for place, trace in enumerate(record.traces)
        ],
    )
