"""Whether a setting holds more than the best so far: as few trials as that takes.

A challenger is tried at once a little above the best rate so far. Two misses there and it has lost;
else it climbs until it misses.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bisection import Tried, highest_held, next_rate

MARGIN = 1.05  # less is chance
_PRECISION = 0.1
_MOST_TRIALS = 8
Try = Callable[[float], Tried]


def race(attempt: Try, *, start_per_s: float, best_per_s: float) -> float:
    """The highest rate that this setting held; 0 when it does not beat *best_per_s*.

    start_per_s: where the first of all settings begins.
    """
    tried: list[Tried] = []
    if best_per_s:
        rate = MARGIN * best_per_s
        # The second time decides: what else the machine does may spoil one.
        if not (attempt(rate).held or attempt(rate).held):
            return 0.0
        tried.append(Tried(rate_per_s=rate, held=True))
        start_per_s = rate
    while len(tried) < _MOST_TRIALS:
        rate_per_s = next_rate(tried, start_per_s=start_per_s, precision=_PRECISION)
        if rate_per_s is None:
            break
        tried.append(attempt(rate_per_s))
    return highest_held(tried)
