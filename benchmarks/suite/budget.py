"""Time shared out among stages, and an end for who takes longer: a Ctrl-C by the clock."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from benchmarks.errors import StageOverran

_SOON_S = 0.001  # a timer of 0 would never ring


def allowance_s(left_s: float, shares: Sequence[float]) -> float:
    """What the first of *shares* may take of the time left: its part of theirs.

    So what one stage does not need, all that follow have more; and nobody less than its share.
    """
    return left_s * shares[0] / sum(shares)


@contextmanager
def at_most(limit_s: float) -> Iterator[None]:
    """Interrupt the block after *limit_s*, as Ctrl-C would, so that it keeps what it has seen.

    Then raises `StageOverran`; an interrupt of somebody else stays one. For the main thread; a
    timer that runs already goes on afterwards.
    """
    rang = done = False

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal rang
        if not done:
            rang = True
            raise KeyboardInterrupt

    begin_s = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    outer_s, _ = signal.setitimer(signal.ITIMER_REAL, max(limit_s, _SOON_S))
    try:
        yield
        done = True
    except KeyboardInterrupt:
        if not rang:
            raise
        raise StageOverran(
            f"It took longer than its share, {limit_s / 60:.1f} min, and was cut short; give a"
            " higher --budget-minutes."
        ) from None
    finally:
        left_s = max(_SOON_S, outer_s - (time.monotonic() - begin_s)) if outer_s else 0.0
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left_s)
