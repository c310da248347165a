"""The bar of a search, on stderr: what is being done to which candidate, and how far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_DOING = {"make": "making", "answer": "answering the exam", "time": "timing"}


class SearchProgress:
    """Counts candidates; while one is at work, shows the step and, of an exam, the rows."""

    def __init__(self, progress: Progress, candidates: int) -> None:
        self._progress = progress
        self._total = progress.add_task("Candidates", total=candidates)
        self._seen: set[str] = set()

    @contextmanager
    def step(self, name: str, step: str, rows: int) -> Iterator[Callable[[int], None]]:
        """While *step* of candidate *name* runs; yields how to tell of rows done."""
        task = self._progress.add_task(f"{name}: {_DOING[step]}", total=rows or None)
        try:
            yield lambda done: self._progress.advance(task, done)
        finally:
            self._progress.remove_task(task)
        if name not in self._seen and step == "time":
            self._seen.add(name)
            self._progress.advance(self._total)

    def say(self, line: str) -> None:
        """A line that stays, above the bar; the only sign of life where there is no terminal."""
        self._progress.console.print(line, highlight=False, markup=False)

    def skip(self) -> None:
        """A candidate is done with before it was timed."""
        self._progress.advance(self._total)


@contextmanager
def search_progress(candidates: int) -> Iterator[SearchProgress]:
    """A bar that is gone when the search is over; the lines said meanwhile stay."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield SearchProgress(progress, candidates)
