"""What `miniml bench offline` leaves: the engine's rates, those of whole runs, and CPU a text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.record import commit, machine, now, versions, write_document

SCHEMA_VERSION = 1
GOAL = 0.9  # of the bare engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One way through texts. cpu_ms: a text, of all its processes, their start included.

    load_1min: the machine's load average when it began.
    """

    texts_per_s: float
    cpu_ms: float
    run_s: float
    load_1min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineRound:
    """The bare engine before, all rows, the bare engine after."""

    before: Pass
    offline: Pass
    after: Pass

    @property
    def ratio(self) -> float:
        """Offline texts/s over the mean of the engine's around it."""
        return self.offline.texts_per_s / statistics.fmean(
            (self.before.texts_per_s, self.after.texts_per_s)
        )

    @property
    def cpu_ratio(self) -> float:
        """The engine's CPU a text over that of offline prediction: what a busy machine changes less."""
        return statistics.fmean((self.before.cpu_ms, self.after.cpu_ms)) / self.offline.cpu_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineRecord:
    """rounds: as seen; all else is derived. lanes: of one thread each."""

    rounds: Sequence[OfflineRound]
    scenario: Mapping[str, Any]
    package_digest: str
    precision: str
    package: Mapping[str, Any]
    recorded_at: str = field(default_factory=now)
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    kind: str = "offline"
    schema_version: int = SCHEMA_VERSION

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(each.ratio for each in self.rounds)

    def document(self) -> dict[str, object]:
        """What was seen, and the ratios."""
        return {
            **asdict(self),
            "ratio": round(self.ratio, 3),
            "cpu_ratio": round(statistics.median(each.cpu_ratio for each in self.rounds), 3),
            "goal": GOAL,
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)

    def __rich__(self) -> Table:
        """A row a pass, and what of the engine comes out."""
        document = self.document()
        table = Table(
            title=f"{self.precision}, {self.scenario['rows']:,} {self.scenario['workload']}",
            title_justify="left",
            caption=f"Offline prediction gives {self.ratio:.1%} of the engine's texts/s (goal:"
            f" {GOAL:.0%}); by CPU a text, start included, {document['cpu_ratio']:.1%}.",
            caption_justify="left",
        )
        for name in ("", "texts/s", "CPU ms a text", "seconds", "load average"):
            table.add_column(name, justify="right" if name else "left")
        for each in self.rounds:
            for name in ("before", "offline", "after"):
                seen: Pass = getattr(each, name)
                table.add_row(
                    "miniml predict --output" if name == "offline" else f"engine, {name}",
                    f"{seen.texts_per_s:,.1f}",
                    f"{seen.cpu_ms:.3f}",
                    f"{seen.run_s:,.0f}",
                    f"{seen.load_1min:.1f}",
                )
        return table
