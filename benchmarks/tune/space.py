"""The settings that are tried. Pure.

Not every combination: first the packages and how cores are shared out, then, for the best of them,
how much a batch may hold, then how much may wait. A server's start costs more than a trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

MAX_BATCH, MAX_QUEUE_MS = 32, 2000.0  # what `miniml serve` does when it is told nothing
_BATCHES = (1, 8, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSetting:
    """One way to serve. lanes and threads None: as the server finds best by itself."""

    package: str
    lanes: int | None = None
    threads: int | None = None
    max_batch: int = MAX_BATCH
    max_queue_ms: float = MAX_QUEUE_MS

    @property
    def name(self) -> str:
        """For people."""
        lanes = f"{self.lanes} x {self.threads}" if self.lanes else "lanes by itself"
        return (
            f"{self.package}, {lanes}, batches to {self.max_batch}, queue {self.max_queue_ms:g} ms"
        )

    @property
    def arguments(self) -> list[str]:
        """For `miniml serve PACKAGE`."""
        words = ["--max-queue-ms", f"{self.max_queue_ms:g}"]
        if self.lanes:
            words += ["--lanes", str(self.lanes), "--threads", str(self.threads)]
        return words

    @property
    def environment(self) -> dict[str, str]:
        """What `miniml serve` has no option for."""
        return {"MINIML_MAX_BATCH": str(self.max_batch)}

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "package": self.package,
            "lanes": self.lanes,
            "threads": self.threads,
            "max_batch": self.max_batch,
            "max_queue_ms": self.max_queue_ms,
        }


def lane_settings(packages: Sequence[str], cores: int) -> list[ServeSetting]:
    """Every package as it comes, then with the cores shared out in each way that uses all of them."""
    splits = [
        (cores // threads, threads) for threads in range(1, cores + 1) if cores % threads == 0
    ]
    plain = [ServeSetting(package=package) for package in packages]
    return plain + [
        replace(setting, lanes=lanes, threads=threads)
        for lanes, threads in splits
        for setting in plain
    ]


def batch_settings(best: ServeSetting) -> list[ServeSetting]:
    """Other limits of a batch."""
    return [replace(best, max_batch=most) for most in _BATCHES if most != best.max_batch]


def queue_settings(best: ServeSetting, goal_ms: float) -> list[ServeSetting]:
    """Other limits of what waits: those that answer no later than the goal, or twice it."""
    limits_ms = dict.fromkeys((goal_ms, 2 * goal_ms))
    return [replace(best, max_queue_ms=ms) for ms in limits_ms if ms != best.max_queue_ms]
