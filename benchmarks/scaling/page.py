"""The page beside the record: one self-contained file of figures and the numbers under them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from benchmarks.scaling.figures import price_figure, replicas_figure
from benchmarks.scaling.record import OURS, ScalingRecord
from benchmarks.scaling.tables import COLUMNS, ratio_line

_TEMPLATE = "page.html.j2"


def write_page(record: ScalingRecord, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    part = path.with_suffix(".part")
    part.write_text(render_page(record), encoding="utf-8")
    return part.replace(path)


def render_page(record: ScalingRecord) -> str:
    """The page; everything in it that comes from a file is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("benchmarks.scaling").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
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
