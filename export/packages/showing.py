"""Tables for people, and the headlines of `gates.json`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

HEADLINES = (
    "accuracy",
    "macro_f1",
    "label_flip_rate",
    "batch_flip_rate",
    "model_bytes",
    "texts_per_s",
)
_SMALL_BYTES = 100_000
Headlines = dict[str, float | None]


def headlines(gates: Mapping[str, Any], variant: str) -> Headlines:
    """The few numbers of *variant* ("fp32" or "served") that are read first; None: not there."""
    entry = gates.get(variant) or {}
    return {name: entry.get(name) for name in HEADLINES}


def headlines_table(columns: Mapping[str, Headlines]) -> Table:
    """A row for each headline, a column for each title."""
    rows = (
        (name, *(_number(name, column[name]) for column in columns.values())) for name in HEADLINES
    )
    return table(("gates", *columns), rows)


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """First column to the left, the others to the right; cells are shown as they are."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, title in enumerate(titles):
        made.add_column(title, justify="right" if number else "left")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))  # Text: a label may look like markup
    return made


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, without lines."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")  # a path must stay whole
    for name, value in rows:
        made.add_row(name, Text(str(value)))
    return made


def weight(size_bytes: float) -> str:
    """To two places; what would vanish so is told in kilobytes."""
    small = size_bytes < _SMALL_BYTES
    return f"{size_bytes / 1e3:.1f} kB" if small else f"{size_bytes / 1e6:.2f} MB"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_rate"):
        return f"{100 * value:.2f} %"
    if name.endswith("_bytes"):
        return weight(value)
    return f"{value:.1f}" if name.endswith("_per_s") else f"{value:.4f}"
