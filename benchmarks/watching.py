"""A load while it runs, in the terminal: the rate, the p99 so far, the errors."""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.record import percentile
from benchmarks.samples import SampleRow
from benchmarks.wire.shots import OK

_RATE_S = 3.0  # the rate shown is that of the last seconds


class LiveNumbers:
    """What can be said so far. warmup_s: what was sent in it is not counted."""

    def __init__(self, warmup_s: float) -> None:
        self._warmup_s = warmup_s
        self._latencies_ms: list[float] = []  # sorted
        self._recent: deque[tuple[float, int]] = deque()
        self.answered = 0
        self.errors = 0

    def add(self, rows: Iterable[SampleRow], now_s: float) -> None:
        """What came until *now_s*, by any clock that goes on."""
        before = self.answered
        for row in rows:
            if row.status != OK:
                self.errors += 1
                continue
            self.answered += 1
            if row.sent_s >= self._warmup_s:
                insort(self._latencies_ms, row.latency_ms)
        self._recent.append((now_s, self.answered - before))
        while len(self._recent) > 1 and self._recent[0][0] < now_s - _RATE_S:
            self._recent.popleft()

    @property
    def rate_per_s(self) -> float:
        """Answers a second, of the last three seconds."""
        if len(self._recent) < 2:  # noqa: PLR2004 - a rate needs two points in time
            return 0.0
        (first_s, first), (last_s, _) = self._recent[0], self._recent[-1]
        answers = sum(count for _, count in self._recent) - first
        return answers / (last_s - first_s)

    def line(self) -> str:
        """All of it, for people."""
        tail = f"p99 {percentile(self._latencies_ms, 99):.1f} ms" if self._latencies_ms else ""
        wrong = f"{self.errors} errors" if self.errors else ""
        return "  ".join(filter(None, (f"{self.rate_per_s:.1f} requests/s", tail, wrong)))


class LoadWatcher:
    """Shows one load; see `watching`."""

    def __init__(self, progress: Progress, title: str, warmup_s: float, total_s: float) -> None:
        self._progress = progress
        self._numbers = LiveNumbers(warmup_s)
        self._task = progress.add_task(title, total=total_s, numbers="")
        self._begin_s: float | None = None

    def see(self, rows: Iterable[SampleRow]) -> None:
        """Show what is known now; time counts from the first sample."""
        rows, now_s = list(rows), time.monotonic()
        if self._begin_s is None and rows:
            self._begin_s = now_s
        if self._begin_s is not None:
            self._numbers.add(rows, now_s)
            self._progress.update(
                self._task, completed=now_s - self._begin_s, numbers=self._numbers.line()
            )


@contextmanager
def watching(title: str, *, warmup_s: float, duration_s: float) -> Iterator[LoadWatcher]:
    """A line on stderr for one load; gone when the block is left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    console = Console(stderr=True)
    # In a log the erased line would leave an empty one.
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        yield LoadWatcher(progress, title, warmup_s, warmup_s + duration_s)
