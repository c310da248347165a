"""The highest rate that holds: which to try next, given what was tried. Pure: no clock, no server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_UP, _DOWN = 1.5, 0.5  # steps while only one side is known; failing far above capacity is dear


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One rate, and whether the goal held at it."""

    rate_per_s: float
    held: bool


def highest_held(tried: Sequence[Tried]) -> float:
    """The highest rate below every one that failed; 0 when none held."""
    failed = _lowest_failed(tried)
    rates = (trial.rate_per_s for trial in tried if trial.held)
    return max((rate for rate in rates if rate < failed), default=0.0)


def next_rate(
    tried: Sequence[Tried], *, start_per_s: float, precision: float = 0.03
) -> float | None:
    """The rate to try next; None when what held and what failed lie within *precision*."""
    if not tried:
        return start_per_s
    held, failed = highest_held(tried), _lowest_failed(tried)
    if math.isinf(failed):
        return held * _UP
    if not held:
        return failed * _DOWN
    return math.sqrt(held * failed) if failed > held * (1 + precision) else None


def _lowest_failed(tried: Sequence[Tried]) -> float:
    return min((trial.rate_per_s for trial in tried if not trial.held), default=math.inf)
