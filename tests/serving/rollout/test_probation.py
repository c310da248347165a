"""Laws of probation: chance condemns nobody, the certain is seen soon, more evil is never better."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.rollout.probation import Conduct, Past, against, limit_ms

counts = st.integers(0, 5000)


@given(counts, counts, st.integers(0, 100))
def test_more_failures_never_acquit(answered: int, failed: int, more: int) -> None:
    """Who must go for some failures must go for more of the same number of requests."""
    past = Past(answered=1000, failed=3)
    total = answered + failed
    worse = min(total, failed + more)
    now = against(past, Conduct(answered=answered, failed=failed), math.inf)
    then = against(past, Conduct(answered=total - worse, failed=worse), math.inf)

    assert then or not now


@given(counts, counts)
def test_no_worse_than_before_is_no_reason(answered: int, failed: int) -> None:
    """A package that fails as often as the one before is not taken back."""
    past = Past(answered=answered, failed=failed)

    assert not against(past, Conduct(answered=answered, failed=failed), math.inf)


@pytest.mark.parametrize("seed", range(20))
def test_chance_condemns_nobody(seed: int) -> None:
    """1 % of failures and 1 % of slow ones, looked at after each of 5,000 answers."""
    chance, past = random.Random(seed), Past()
    failed = slow = 0
    for total in range(1, 5001):
        failed += chance.random() < 0.01
        slow += chance.random() < 0.01
        conduct = Conduct(answered=total - failed, failed=failed, timed=total, slow=slow)
        assert not against(past, conduct, 10.0)


@pytest.mark.parametrize("bad", ["failed", "slow"])
def test_the_certain_is_seen_soon(bad: str) -> None:
    """Three of three, or a fifth of fifty; the sentence says how many of how many. One alone does not."""

    def told(count: int, total: int) -> str:
        failed, slow = (count, 0) if bad == "failed" else (0, count)
        conduct = Conduct(answered=total - failed, failed=failed, timed=total, slow=slow)
        return against(Past(), conduct, 10.0)

    assert "3 of 3 " in told(3, 3)
    assert "10 of 50 " in told(10, 50)
    assert not told(1, 1)
    assert not told(1, 50)


@given(st.floats(0.01, 1e5), st.floats(0.01, 1e5))
def test_the_limit_grows_with_what_was_usual(one: float, other: float) -> None:
    """What is told holds; else at least twice the p99 before; unknown: no limit."""
    less, more = sorted((one, other))
    below, above = (limit_ms(Past(p99_ms=p99), None) for p99 in (less, more))

    assert below <= above
    assert above >= 2 * more
    assert limit_ms(Past(p99_ms=less), more) == more
    assert limit_ms(Past(), None) == math.inf
