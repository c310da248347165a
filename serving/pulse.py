"""The process's own times: how late its event loop is, and how old it is.

Late is what a request waits before any code of ours sees it. A timer that should fire every 50 ms
notes how late it fires. Inference must never run on the loop; this is the number that would show it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from pathlib import Path

_PERIOD_S = 0.05
_KEPT = 1200  # a minute


class Pulse:
    """Lateness of the loop it was started on, over the last minute."""

    def __init__(self) -> None:
        self._late_ms: deque[float] = deque(maxlen=_KEPT)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin on the running loop; again does nothing."""
        if self._timer is None:
            self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Note nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def beats(self) -> int:
        """How many are kept."""
        return len(self._late_ms)

    def late_ms(self, percent: float) -> float:
        """The *percent*th percentile of lateness; 0 before the first beat."""
        if not self._late_ms:
            return 0.0
        ordered = sorted(self._late_ms)
        return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(
            due_s := loop.time() + _PERIOD_S, lambda: self._beat(loop, due_s)
        )

    def _beat(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._late_ms.append(max(0.0, (loop.time() - due_s) * 1e3))
        self._schedule(loop)


def process_age_s() -> float:
    """Seconds since the kernel started this process; 0 where it does not tell."""
    try:
        # Fields after the command's name, which may hold spaces; the 20th of them, in clock ticks.
        started = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
