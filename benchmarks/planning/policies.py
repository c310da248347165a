"""How others batch: each policy in its shortest form, on plain values.

All pull (a free lane takes what waits) but Ray's, which seals batches first. Where several lanes are
free, those that pull share what waits, as ours does: the comparison is about what goes together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice

from benchmarks.planning.simulator import Policy


class _Simple:
    """A policy that learns nothing and never wakes by itself."""

    def ran(self, batch: int, longest: int, ms: float) -> None:
        """Not asked for."""

    def wakes_s(self) -> float:
        """Never."""
        return math.inf

    def wake(self, now_s: float) -> None:
        """Never asked for."""


class FifoPadded(_Simple):
    """First come, first served: as many as a batch may hold, padded to the longest."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._waiting: deque[int] = deque()

    def arrive(self, text: int, tokens: int, now_s: float) -> None:  # noqa: ARG002
        """To the end of the line."""
        self._waiting.append(text)

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:  # noqa: ARG002
        """The first of the line."""
        count = min(self._max_batch, math.ceil(len(self._waiting) / free_lanes))
        return [self._waiting.popleft() for _ in range(count)]


class SortAndCut(_Simple):
    """All that waits, sorted by length, shortest first, cut into batches; when they have run, again."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._waiting: list[tuple[int, int]] = []  # (tokens, text)
        self._cut: deque[list[int]] = deque()

    def arrive(self, text: int, tokens: int, now_s: float) -> None:  # noqa: ARG002
        """Wait for the next sorting."""
        self._waiting.append((tokens, text))

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:  # noqa: ARG002
        """The next of the batches that were cut."""
        if not self._cut and self._waiting:
            texts = iter([text for _, text in sorted(self._waiting)])
            size = min(self._max_batch, math.ceil(len(self._waiting) / free_lanes))
            self._cut.extend(iter(lambda: list(islice(texts, size)), []))
            self._waiting.clear()
        return self._cut.popleft() if self._cut else []


class TokenBudget(_Simple):
    """Text Embeddings Inference: first come, until the padded batch would exceed the budget.

    Who does not fit stays first in line. A text alone always runs.
    """

    def __init__(self, budget_tokens: int) -> None:
        self._budget_tokens = budget_tokens
        self._waiting: deque[tuple[int, int]] = deque()  # (text, tokens)

    def arrive(self, text: int, tokens: int, now_s: float) -> None:  # noqa: ARG002
        """To the end of the line."""
        self._waiting.append((text, tokens))

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:  # noqa: ARG002
        """The first of the line."""
        most, longest = math.ceil(len(self._waiting) / free_lanes), 0
        batch: list[int] = []
        while self._waiting and len(batch) < most:
            text, tokens = self._waiting[0]
            longest = max(longest, tokens)
            if batch and longest * (len(batch) + 1) > self._budget_tokens:
                break
            batch.append(text)
            self._waiting.popleft()
        return batch


class RayBatch(_Simple):
    """`@serve.batch` of Ray Serve 2.60, with as many concurrent batches as lanes.

    The first text of a batch starts its timer; when that is over or the batch is full it is sealed,
    whether or not a lane is free (ray/serve/batching.py takes the semaphore after the batch is
    formed), and waits behind those sealed before it.
    """

    def __init__(self, max_batch: int, wait_s: float) -> None:
        self._max_batch, self._wait_s = max_batch, wait_s
        self._open: list[int] = []
        self._opened_s = math.inf
        self._sealed: deque[list[int]] = deque()

    def arrive(self, text: int, tokens: int, now_s: float) -> None:  # noqa: ARG002
        """Into the open batch."""
        self.wake(now_s)
        if not self._open:
            self._opened_s = now_s
        self._open.append(text)
        if len(self._open) == self._max_batch:
            self._seal()

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:  # noqa: ARG002
        """The batch that was sealed first."""
        return self._sealed.popleft() if self._sealed else []

    def wakes_s(self) -> float:
        """When the timer of the open batch is over."""
        return self._opened_s + self._wait_s

    def wake(self, now_s: float) -> None:
        """Seal the open batch when its timer is over."""
        if self._open and now_s >= self.wakes_s():
            self._seal()

    def _seal(self) -> None:
        self._sealed.append(self._open)
        self._open, self._opened_s = [], math.inf


MakePolicy = Callable[[], Policy]
_SIZES = (2, 4, 8, 16, 32)
_BUDGETS_TOKENS = (64, 128, 256, 512, 1024, 2048, 16384)  # the last is TEI's default
_WAITS_S = (0.0, 0.002, 0.01, 0.05)  # 10 ms is Ray's default
_RAY_SIZES = (4, 10, 32)  # 10 is Ray's default


def _made(policy: Callable[..., Policy], *given: float) -> MakePolicy:
    return lambda: policy(*given)


# name -> parameter, for people -> a new policy.
OTHERS: Mapping[str, Mapping[str, MakePolicy]] = {
    "FIFO, padded": {f"{size} texts": _made(FifoPadded, size) for size in _SIZES},
    "sort and cut": {f"{size} texts": _made(SortAndCut, size) for size in _SIZES},
    "token budget": {f"{budget} tokens": _made(TokenBudget, budget) for budget in _BUDGETS_TOKENS},
    "@serve.batch": {
        f"{size} texts, {wait_s * 1e3:g} ms": _made(RayBatch, size, wait_s)
        for size in _RAY_SIZES
        for wait_s in _WAITS_S
    },
    "one by one": {"": _made(FifoPadded, 1)},
}
