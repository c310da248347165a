"""What an export gives back: the package, and why it is this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from export.choice import pareto_front
from registry.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The registered package. gates: its `gates.json`."""

    version: Version
    folder: Path
    gates: Mapping[str, Any]
    reused: bool
    wall_s: float

    def document(self) -> dict[str, object]:
        """The version, its gates and where it lies."""
        return {
            **self.version.document(),
            "folder": str(self.folder),
            "gates": dict(self.gates),
            "reused": self.reused,
            "wall_s": round(self.wall_s, 1),
        }

    def __rich__(self) -> Group:
        """A row for each candidate that was judged, and what to know beside the numbers."""
        said = " (unchanged, reused)" if self.reused else ""
        gates, served = self.gates, self.gates["served"]
        lines = [
            *(
                f"{entry['name']} failed: {_reasons(entry)}."
                for entry in gates["candidates"]
                if not entry["passed"]
            ),
            *(f"{entry['name']}: {entry['reason']}." for entry in gates["not_tried"]),
            *(f"Note: {note}." for note in gates["notes"]),
        ]
        return Group(
            f"[bold]Package {self.version.reference}[/]{said}: {served['name']}, judged on"
            f" {gates['exam_rows']} exam rows",
            _table(gates["candidates"], served["name"]),
            *lines,
            f"package  {self.folder}",
            f"digest   {self.version.digest}",
        )


def _table(candidates: Sequence[Mapping[str, Any]], served: str) -> Table:
    """Narrow enough for 80 columns; the fastest first, and a star for what no other beats.

    flips: against fp32; batch: against the same text alone.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("candidate", no_wrap=True)
    for name in ("accuracy", "flips %", "batch %", "MB", "texts/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    timed = {entry["name"]: entry for entry in candidates if entry["speed"]}
    front = pareto_front(
        {
            name: (-entry["texts_per_s"], entry["label_flip_rate"], entry["model_bytes"])
            for name, entry in timed.items()
        }
    )
    for entry in sorted(candidates, key=lambda entry: -(entry["texts_per_s"] or 0)):
        star = " *" if entry["name"] in front else ""
        verdict = ("passed" if entry["passed"] else "failed") + star
        table.add_row(
            entry["name"],
            f"{entry['accuracy']:.3f}",
            f"{100 * entry['label_flip_rate']:.2f}",
            f"{100 * entry['batch_flip_rate']:.2f}",
            f"{entry['model_bytes'] / 1e6:.1f}",
            "-" if entry["texts_per_s"] is None else f"{entry['texts_per_s']:.0f}",
            f"[bold]served{star}[/]" if entry["name"] == served else verdict,
        )
    return table


def _reasons(entry: Mapping[str, Any]) -> str:
    return "; ".join(entry["reasons"])
