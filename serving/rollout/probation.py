"""Whether a package that has just been deployed must go again: a pure function of what was counted.

Both questions are one: are there more bad answers than chance gives a good package? Bad is an answer of
status 500 or more, or one that took longer than the limit; of these 1 % may be, which is what a p99
says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# A good package looks so bad once in a million looks: each replica looks once a second, for minutes.
_CHANCE = 1e-6
# Failures that a good package has, too: a deadline that a caller set too short is answered by 504.
_FAILURES, _TIMES_BEFORE = 0.01, 2.0
_BEYOND_P99 = 0.01
# Slower is: twice the p99 before, and by 20 ms. A neighbour on shared cores, or an empty cache right
# after the swap, makes a half more; below 20 ms nobody's goal is missed.
_SLOWER, _MORE_MS = 2.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the package before did. p99_ms: None where too few came to say."""

    answered: int = 0
    failed: int = 0
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """What the new package did so far. timed: of which the time is known; slow: beyond the limit."""

    answered: int = 0
    failed: int = 0
    timed: int = 0
    slow: int = 0


def limit_ms(past: Past, told_ms: float | None) -> float:
    """Milliseconds that 99 of 100 answers must not take longer than; infinite where nobody can say."""
    if told_ms is not None:
        return told_ms
    if past.p99_ms is None:
        return math.inf
    return max(_SLOWER * past.p99_ms, past.p99_ms + _MORE_MS)


def against(past: Past, conduct: Conduct, limit_ms: float) -> str:
    """Why the package must go, in one sentence; empty while nothing certain speaks against it.

    No least number of answers is needed: of few, nothing is certain, unless nearly all are bad.
    """
    total = conduct.answered + conduct.failed
    before = past.failed / max(1, past.answered + past.failed)
    if _is_too_many(conduct.failed, total, max(_FAILURES, _TIMES_BEFORE * before)):
        share = conduct.failed / total
        return f"{conduct.failed} of {total} requests failed ({share:.1%}; before {before:.1%})"
    if _is_too_many(conduct.slow, conduct.timed, _BEYOND_P99):
        return (
            f"{conduct.slow} of {conduct.timed} answers took longer than {limit_ms:.0f} ms,"
            " which the p99 may be"
        )
    return ""


def _is_too_many(bad: int, total: int, usual: float) -> bool:
    """Whether *bad* of *total* are more than chance gives where *usual* is the share of bad ones.

    By Chernoff's bound, which holds for any number of answers, few ones too.
    """
    if not bad or bad <= usual * total:
        return False
    share = bad / total
    distance = share * math.log(share / usual)
    if bad < total:
        distance += (1 - share) * math.log((1 - share) / (1 - usual))
    return total * distance > -math.log(_CHANCE)
