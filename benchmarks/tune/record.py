"""What a tuning leaves behind: every setting with every trial, and which won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.record import SCHEMA_VERSION, commit, machine, now, versions, write_document
from benchmarks.slo.trials import Goal, SloTrial
from benchmarks.tune.space import ServeSetting


@dataclass(slots=True, kw_only=True)
class Contest:
    """One setting's server and what it held; grows while it runs.

    stage: "lanes", "batch", "queue" or "final". rate_per_s: the highest that held; 0 when it did not
    beat the best so far. goodput_per_s: answers within the goal, a second, of half as many requests
    again as the best rate; only where queues are compared. fault: why it could not be tried.
    """

    setting: ServeSetting
    stage: str
    package_digest: str = ""
    rate_per_s: float = 0.0
    trials: list[SloTrial] = field(default_factory=list)
    goodput_per_s: float | None = None
    fault: str = ""

    def document(self) -> dict[str, Any]:
        """All of it."""
        return {
            "setting": self.setting.document(),
            "stage": self.stage,
            "package_digest": self.package_digest,
            "rate_per_s": self.rate_per_s,
            "goodput_per_s": self.goodput_per_s,
            "fault": self.fault,
            "trials": [trial.document() for trial in self.trials],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRecord:
    """contests: in their order. best: None when nothing kept the goal. written: the config file."""

    goal: Goal
    contests: Sequence[Contest]
    best: ServeSetting | None
    written: Path | None
    complete: bool
    partial: bool
    scenario: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)
    schema_version: int = SCHEMA_VERSION

    @property
    def package_digest(self) -> str:
        """Of the package that won; empty when none did."""
        won = [c.package_digest for c in self.contests if c.setting == self.best]
        return won[-1] if won else ""

    def document(self) -> dict[str, Any]:
        """The whole record."""
        return {
            "kind": "tune",
            "schema_version": self.schema_version,
            "loop": "open",
            "goal": {"p99_ms": self.goal.p99_ms, "errors": 0},
            "best": self.best.document() if self.best else None,
            "written": str(self.written) if self.written else None,
            "complete": self.complete,
            "partial": self.partial,
            "scenario": dict(self.scenario),
            "package_digest": self.package_digest,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "commit": self.commit,
            "recorded_at": self.recorded_at,
            "contests": [contest.document() for contest in self.contests],
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)

    def __rich__(self) -> Table:
        """A row for each setting, in the order tried."""
        table = Table(
            title=f"open loop, {self.scenario['workload']}, p99 at most {self.goal.p99_ms:g} ms",
            title_justify="left",
            caption="\n".join(self._sentences()),
            caption_justify="left",
        )
        table.add_column("stage")
        table.add_column("setting")
        for name in ("requests/s", "trials", "good at 1.5 x"):
            table.add_column(name, justify="right")
        for contest in self.contests:
            good = "" if contest.goodput_per_s is None else f"{contest.goodput_per_s:.1f}"
            rate = f"{contest.rate_per_s:.1f}" if contest.rate_per_s else "less"
            table.add_row(
                contest.stage,
                contest.setting.name,
                contest.fault or ("" if contest.stage == "queue" else rate),
                str(len(contest.trials)),
                good,
            )
        return table

    def _sentences(self) -> list[str]:
        known = ["Interrupted: this is what was known by then; no config file was written."]
        if self.best is None:
            return known if self.partial else ["No setting kept the goal."]
        said = [*(known if self.partial else ()), f"Best: {self.best.name}."]
        final = [c for c in self.contests if c.stage == "final" and not c.fault]
        if len(final) > 1:
            untuned, tuned = final
            said.append(
                f"Measured again, one after the other: untuned {untuned.rate_per_s:.1f} requests/s,"
                f" tuned {tuned.rate_per_s:.1f}."
            )
        if not self.complete:
            said.append("The time was over before every setting had been tried.")
        return said
