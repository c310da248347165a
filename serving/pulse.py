"""How late the event loop is: what a request waits before any code of ours sees it.

A timer that should fire every 50 ms notes how late it fires. Inference must never run on the loop;
this is the number that would show it.
"""

from __future__ import annotations

import asyncio
from collections import deque

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
