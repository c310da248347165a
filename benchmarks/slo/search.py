"""Which rate to try next and what is known by now, when a trial may be wrong. Pure.

Near its limit a server keeps its goal in one trial and misses it in the next, and on a shared machine
a trial far below the limit may fail by bad luck. So a rate that decides is tried several times, and
what was seen is read as shares that fall with the rate (isotonic regression): where a rate held less
often than a higher one, chance was at work and both are worth what they are together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bisection import Tried

_UP, _DOWN = 1.5, 0.5  # steps while only one side is known; failing far above capacity is dear
_MAJORITY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A rate that was tried. share: of the trials that held, made to fall with the rate."""

    rate_per_s: float
    trials: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """rate_per_s: the highest that held in most trials; 0 when none did.

    always_per_s: up to here every trial held. never_per_s: from here none did, infinite when all
    that failed held elsewhere. Between the two it was now one, now the other.
    """

    rate_per_s: float
    always_per_s: float
    never_per_s: float


def ladder(tried: Sequence[Tried]) -> list[Rung]:
    """Every rate tried, ascending, with its share of the truth."""
    by_rate: dict[float, list[bool]] = {}
    for trial in tried:
        by_rate.setdefault(trial.rate_per_s, []).append(trial.held)
    blocks: list[tuple[list[float], int, int]] = []  # rates, held, trials
    for rate, held in sorted(by_rate.items()):
        block = ([rate], sum(held), len(held))
        # A share that rises is joined with the one before until none does.
        while blocks and block[1] * blocks[-1][2] > blocks[-1][1] * block[2]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return [
        Rung(rate_per_s=rate, trials=len(by_rate[rate]), share=held / trials)
        for rates, held, trials in blocks
        for rate in rates
    ]


def estimate(tried: Sequence[Tried]) -> Estimate:
    """What *tried* tells of the highest rate that holds."""
    rungs = ladder(tried)
    return Estimate(
        rate_per_s=max((r.rate_per_s for r in rungs if r.share >= _MAJORITY), default=0.0),
        always_per_s=max((r.rate_per_s for r in rungs if r.share == 1), default=0.0),
        never_per_s=min((r.rate_per_s for r in rungs if r.share == 0), default=math.inf),
    )


def next_rate(
    tried: Sequence[Tried], *, start_per_s: float, precision: float, repeats: int
) -> float | None:
    """The rate to try next; None when nothing is left to learn.

    First upwards or downwards to find both sides, then between them until they are within
    *precision*, then again the one that fails and the one that holds, until each was tried *repeats*
    times. If that turns one over, the search goes on from there.
    """
    if not tried:
        return start_per_s
    rungs = ladder(tried)
    held = [rung for rung in rungs if rung.share >= _MAJORITY]
    failed = [rung for rung in rungs if rung.share < _MAJORITY]
    if not failed:
        return held[-1].rate_per_s * _UP
    if not held:
        return failed[0].rate_per_s * _DOWN
    below, above = held[-1], failed[0]
    if above.rate_per_s > below.rate_per_s * (1 + precision):
        return math.sqrt(below.rate_per_s * above.rate_per_s)
    for rung in (above, below):
        if rung.trials < repeats:
            return rung.rate_per_s
    return None


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """The rate at which rate / latency is greatest (Kleinrock's power), of (rate, latency in ms).

    Below it a higher rate costs less than its share in latency, beyond it more.
    """
    if not points:
        return None
    rate, _ = max(points, key=lambda point: point[0] / point[1])
    return rate
