"""Looks at a server's memory while a load runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.client_process import Watcher
from benchmarks.roles import memory_by_role
from benchmarks.samples import SampleRow


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLook:
    """at_s: by `time.perf_counter`. Memory by role, see `memory_by_role`."""

    at_s: float
    own_bytes: Mapping[str, int]
    pss_bytes: Mapping[str, int]


class MemoryWatcher:
    """Passes on what it sees to *shown*, and looks at the memory every *every_s* seconds."""

    def __init__(
        self,
        pid: int,
        every_s: float,
        shown: Watcher,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pid = pid
        self._every_s = every_s
        self._shown = shown
        self._clock = clock
        self._due_s = clock()
        self.looks: list[MemoryLook] = []

    def see(self, rows: Iterable[SampleRow]) -> None:
        """Some time has passed."""
        self._shown.see(rows)
        if (now_s := self._clock()) < self._due_s:
            return
        own_bytes, pss_bytes = memory_by_role(self._pid)
        self.looks.append(MemoryLook(at_s=now_s, own_bytes=own_bytes, pss_bytes=pss_bytes))
        self._due_s = now_s + self._every_s
