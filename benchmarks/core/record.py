"""What `miniml bench core` leaves behind: all that was seen, and the table derived from it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.core.measures import Measure, derive
from benchmarks.record import commit, machine, versions

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreRecord:
    """seen: name (with its unit) -> workload -> values, see `measures`. lanes: count and threads.

    package: see `subject`. partial: it was cut short.
    """

    seen: Mapping[str, Mapping[str, Sequence[float]]]
    scenario: Mapping[str, Any]
    lanes: Mapping[str, int]
    package_digest: str
    precision: str
    recorded_at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    package: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    kind: str = "core"
    schema_version: int = SCHEMA_VERSION

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The lines of the table."""
        return derive(self.seen)

    def document(self) -> dict[str, object]:
        """What was seen, and what is derived from it."""
        return {**asdict(self), "measures": [measure.document() for measure in self.measures]}

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.document()) + "\n", encoding="utf-8")
        return part.replace(path)

    def __rich__(self) -> Table:
        """A line for each measure."""
        lanes = f"{self.lanes['count']} lane(s) of {self.lanes['threads']} thread(s)"
        table = Table(
            title=f"{self.precision}, {lanes}, {self.scenario['rounds']} round(s)",
            title_justify="left",
            caption="Cut short: this is what was seen by then." if self.partial else None,
            caption_justify="left",
        )
        for name in ("measure", "texts", "seen", "low-high", "goal", "held"):
            table.add_column(name, justify="left" if name in ("measure", "texts") else "right")
        for measure in self.measures:
            table.add_row(*_row(measure))
        return table


def _row(measure: Measure) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:.{measure.digits}f}"

    values, median = measure.values, measure.median
    sign = "<=" if measure.at_most else ">="
    return (
        measure.name,
        measure.workload,
        "-" if median is None else number(median),
        f"{number(min(values))}-{number(max(values))}" if len(values) > 1 else "",
        "" if measure.goal is None else f"{sign} {measure.goal:g}",
        {None: "" if measure.goal is None else "-", True: "yes", False: "no"}[measure.held],
    )
