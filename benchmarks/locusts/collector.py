"""The samples of all of Locust's processes in one file, wherever they were seen.

With workers, each sends its rows along with the reports it makes to the master anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from benchmarks.samples import SampleFile

ROWS, END = "miniml_rows", "miniml_end"  # keys in a worker's report
_FLUSH_S = 0.2


class Mailbox:
    """A worker's rows until its next report."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._end: Mapping[str, Any] | None = None

    def add(self, *row: float) -> None:
        """Keep one row."""
        self._rows.append(row)

    def close(self, end: Mapping[str, Any]) -> None:
        """Nothing more comes."""
        self._end = end

    def empty_into(self, report: dict[str, Any]) -> None:
        """All there is, for the master."""
        report[ROWS], self._rows = self._rows, []
        report[END], self._end = self._end, None


class Collector:
    """All rows, and the end of each process, into *folder*, if there is one.

    processes: how many will tell an end.
    """

    def __init__(self, folder: Path | None, *, processes: int) -> None:
        self._samples = SampleFile(folder) if folder else None
        self._processes = processes
        self._ends: list[Mapping[str, Any]] = []
        self._written = False
        self.complete = Event()
        if self._samples:
            gevent.spawn(self._flush, self._samples)

    def add(self, *row: float) -> None:
        """Keep one row."""
        if self._samples and not self._written:
            self._samples.add(*row)

    def report(self, report: Mapping[str, Any]) -> None:
        """What a worker sent."""
        for row in report.get(ROWS) or ():
            self.add(*row)
        if end := report.get(END):
            self.close(end)

    def close(self, end: Mapping[str, Any]) -> None:
        """One process has ended."""
        self._ends.append(end)
        if len(self._ends) >= self._processes:
            self.complete.set()

    def write(self) -> None:
        """The end of all; those who told none were interrupted."""
        if self._written:
            return
        self._written = True
        if self._samples is None:
            return
        missing = len(self._ends) < self._processes
        self._samples.end(
            {
                "load_s": max((end["load_s"] for end in self._ends), default=0.0),
                "began_s": min((end["began_s"] for end in self._ends), default=0.0),
                "interrupted": missing or any(end["interrupted"] for end in self._ends),
                "out_of_files": any(end["out_of_files"] for end in self._ends),
                "clients": [client for end in self._ends for client in end["clients"]],
            }
        )

    def _flush(self, samples: SampleFile) -> None:
        while not self._written:
            samples.flush()
            gevent.sleep(_FLUSH_S)
