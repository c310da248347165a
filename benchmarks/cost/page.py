"""The page of `miniml cost`: one self-contained file."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cost.figures import cost_figure
from benchmarks.cost.record import CostReport
from benchmarks.cost.tables import HEADINGS, cells, sentences, title
from benchmarks.pages import render, write_whole


def write_page(report: CostReport, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    return write_whole(render_page(report), path)


def render_page(report: CostReport) -> str:
    """The page; everything in it that comes from a file is escaped."""
    return render(
        "benchmarks.cost",
        title=title(report),
        figure=cost_figure(report),
        headings=HEADINGS,
        rows=[
            {"best": row is report.cheapest_cpu, "cells": cells(report, row)} for row in report.rows
        ],
        sentences=list(sentences(report)),
    )
