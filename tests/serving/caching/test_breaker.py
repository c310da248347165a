"""Laws of leaving a failing helper alone: it is asked less and less, and again once it answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.caching.breaker import Breaker


def test_three_failures_in_a_row_open_it_and_a_success_closes_it() -> None:
    """Two may pass; after the third nobody asks for a second; then one does, and all may again."""
    breaker = Breaker()
    for _ in range(2):
        breaker.failed(0.0)
    assert breaker.allows(0.0)
    breaker.failed(0.0)

    assert not breaker.allows(0.99)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0), "one try at a time"
    breaker.succeeded()
    assert breaker.allows(1.0)


def test_each_failed_try_doubles_the_pause_up_to_half_a_minute() -> None:
    """1, 2, 4, ... seconds, and never longer than 30."""
    breaker, now_s, pauses = Breaker(), 0.0, []
    for _ in range(3):
        breaker.failed(now_s)
    for _ in range(8):
        began_s = now_s
        while not breaker.allows(now_s):
            now_s += 0.5
        pauses.append(now_s - began_s)
        breaker.failed(now_s)

    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.booleans(), max_size=50))
def test_a_helper_that_recovers_is_used_again(outcomes: list[bool]) -> None:
    """Whatever came before, within half a minute it is asked, and one success is enough."""
    breaker, now_s = Breaker(), 0.0
    for well in outcomes:
        now_s += 31.0
        assert breaker.allows(now_s)
        breaker.succeeded() if well else breaker.failed(now_s)
    now_s += 31.0

    assert breaker.allows(now_s)
    breaker.succeeded()
    assert breaker.allows(now_s)
    assert breaker.allows(now_s)
