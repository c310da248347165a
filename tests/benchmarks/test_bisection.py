"""The search for the highest rate that holds: a pure function of what was tried."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bisection import Tried, highest_held, next_rate

rates = st.floats(0.01, 1e5)
PRECISION = 0.03


def search(limit: float, start: float, steps: int) -> list[Tried]:
    """What is tried when exactly the rates up to *limit* hold."""
    tried: list[Tried] = []
    while len(tried) < steps:
        rate = next_rate(tried, start_per_s=start, precision=PRECISION)
        if rate is None:
            break
        tried.append(Tried(rate_per_s=rate, held=rate <= limit))
    return tried


@given(st.lists(st.builds(Tried, rate_per_s=rates, held=st.booleans())))
def test_a_rate_that_failed_is_never_the_answer(tried: list[Tried]) -> None:
    """Whatever was seen, the answer held, and nothing at or below it failed."""
    found = highest_held(tried)

    assert found == 0 or Tried(rate_per_s=found, held=True) in tried
    assert all(trial.rate_per_s > found for trial in tried if not trial.held)


@given(rates, rates)
def test_a_sharp_limit_is_found(limit: float, start: float) -> None:
    """With steps enough, the answer is below the limit by the precision at most."""
    found = highest_held(search(limit, start, steps=100))

    assert limit / (1 + PRECISION) * (1 - 1e-9) <= found <= limit


@given(st.floats(0.3, 1.5))
def test_six_steps_are_enough_near_the_start(limit: float) -> None:
    """A limit between a third and one and a half of the start is found to a tenth in six steps."""
    found = highest_held(search(limit, 1.0, steps=6))

    assert limit / 1.1 <= found <= limit


@given(st.lists(st.booleans(), max_size=30), rates)
def test_the_next_rate_lies_between(verdicts: list[bool], start: float) -> None:
    """Whatever the verdicts, each rate tried is above what held and below all that failed."""
    tried: list[Tried] = []
    for held in verdicts:
        rate = next_rate(tried, start_per_s=start)
        if rate is None:
            break
        assert rate > highest_held(tried)
        assert rate < min((t.rate_per_s for t in tried if not t.held), default=math.inf)
        tried.append(Tried(rate_per_s=rate, held=held))
