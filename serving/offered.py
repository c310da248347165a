"""Work that came, waits and was done, as the autoscaler wants to hear it: in replica-seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.work import Tally

# A report's weight in what is believed of batches: about the last five count.
_WEIGHT = 0.2


@dataclass(slots=True)
class Offered:
    """Since the start, refused or not: milliseconds of one lane, each text for itself, and texts."""

    work_ms: float = 0.0
    texts: int = 0

    def add(self, works_ms: list[float]) -> None:
        """Texts that came."""
        self.work_ms += sum(works_ms)
        self.texts += len(works_ms)


class Reporter:
    """Says what came since it was last asked.

    A text costs less in a batch than by itself: by how much is learned from what lanes were busy with.
    """

    def __init__(
        self,
        offered: Offered,
        *,
        lanes: int,
        tally: Callable[[], Tally],
        queued_ms: Callable[[], float],
        now_s: float,
    ) -> None:
        """queued_ms: of one lane, each text for itself, spread over the lanes."""
        self._offered = offered
        self._lanes = lanes
        self._tally = tally
        self._queued_ms = queued_ms
        self._before = (now_s, offered.work_ms, offered.texts, tally())
        self._batch_share = 1.0
        self._batch_ms = 0.0

    def report(self, now_s: float) -> dict[str, float]:
        """What `serving.autoscaler` reads; see `serving.scaling.Reported`."""
        before_s, work_ms, texts, tally = self._before
        offered, done = self._offered, self._tally()
        self._before = (now_s, offered.work_ms, offered.texts, done)
        self._learn(tally, done)
        spent_ms = max(1.0, (now_s - before_s) * 1e3)
        came_ms = (offered.work_ms - work_ms) * self._batch_share
        return {
            "load": came_ms / spent_ms / self._lanes,
            "texts": float(offered.texts - texts),
            "waiting_s": self._queued_ms() * self._batch_share / 1e3,
            "batch_ms": self._batch_ms,
        }

    def _learn(self, before: Tally, now: Tally) -> None:
        busy_ms = (now.busy_s - before.busy_s) * 1e3
        if (work_ms := now.work_ms - before.work_ms) > 0:
            self._batch_share += _WEIGHT * (busy_ms / work_ms - self._batch_share)
        if (batches := now.batches - before.batches) > 0:
            self._batch_ms = busy_ms / batches


def together(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """One report for several packages that share the cores: their work added, the longest batch."""
    total = {name: sum(report[name] for report in reports) for name in reports[0]}
    return total | {"batch_ms": max(report["batch_ms"] for report in reports)}
