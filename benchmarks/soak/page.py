"""The page beside the record: one self-contained file of figures and the numbers under them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import render, write_whole
from benchmarks.soak.figures import latency_figure, memory_figure
from benchmarks.soak.record import SoakRecord
from benchmarks.soak.tables import HEADINGS, memory_rows, sentences


def write_page(record: SoakRecord, path: Path) -> Path:
    """All of the page at *path*, or nothing."""
    return write_whole(render_page(record), path)


def render_page(record: SoakRecord) -> str:
    """The page; everything in it that comes from the record is escaped."""
    return render(
        "benchmarks.soak",
        record=record,
        memory=memory_figure(record),
        latency=latency_figure(record),
        headings=HEADINGS,
        rows=memory_rows(record),
        sentences=sentences(record),
    )
