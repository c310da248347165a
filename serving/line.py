"""The line of texts that wait: who is first, and how much work stands in it.

Every priority has a handicap in time: a text stands in line as if it had come so much later. So
bulk work lets those of the next seconds pass, and no more: nothing can starve. Knows neither threads
nor costs.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from typing import Generic, Literal, Protocol, TypeVar

Priority = Literal["interactive", "bulk"]
HANDICAP_S: dict[Priority, float] = {"interactive": 0.0, "bulk": 10.0}


class Ranked(Protocol):
    """rank_s: place in line, the arrival plus the handicap. work_ms: cost alone."""

    priority: Priority
    rank_s: float
    work_ms: float


Queued = TypeVar("Queued", bound=Ranked)


class Line(Generic[Queued]):
    """Texts in order of `rank_s`; equals in order of arrival. Adding and removing take no search."""

    def __init__(self) -> None:
        # One for each priority, each in order of arrival and so of rank; linked lists, since most
        # texts leave from the front or near it.
        self._queues: dict[Priority, OrderedDict[int, Queued]] = {
            priority: OrderedDict() for priority in HANDICAP_S
        }
        self.work_ms = 0.0

    def __len__(self) -> int:
        """How many stand in it."""
        return sum(map(len, self._queues.values()))

    def add(self, text: Queued) -> None:
        """Texts of one priority must come in order of their rank."""
        self._queues[text.priority][id(text)] = text
        self.work_ms += text.work_ms

    def remove(self, texts: Iterable[Queued]) -> int:
        """Take out those of *texts* that stand in line, and say how many did."""
        removed = 0
        for text in texts:
            if self._queues[text.priority].pop(id(text), None) is not None:
                self.work_ms -= text.work_ms
                removed += 1
        if not self:
            self.work_ms = 0.0  # of rounding, something may be left
        return removed

    def first(self, count: int) -> list[Queued]:
        """The first *count* texts, or all."""
        queues = [queue.values() for queue in self._queues.values() if queue]
        # Mostly there is but one priority, and nothing to merge.
        merged = queues[0] if len(queues) == 1 else heapq.merge(*queues, key=attrgetter("rank_s"))
        return list(islice(merged, count))
