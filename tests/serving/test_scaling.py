"""Laws of the autoscaling decision."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scaling import (
    Reported,
    ScalingGoal,
    ScalingMemory,
    busy_share,
    decide,
    expected_load,
    replicas_needed,
)

GOAL = ScalingGoal(least=1, most=20)
STEADY = Reported(load=4.0, over_s=10, latest=4.0, latest_texts=4000, batch_ms=10.0, waiting_s=0.0)
NOTHING = Reported(load=0, over_s=10, latest=0, latest_texts=0, batch_ms=10.0, waiting_s=0.0)
loads = st.floats(0, 1000)


def reports(load: st.SearchStrategy[float] = loads) -> st.SearchStrategy[Reported]:
    """Any report."""
    return st.builds(
        Reported,
        load=load,
        over_s=st.floats(1, 60),
        latest=load,
        latest_texts=st.floats(0, 1e6),
        batch_ms=st.floats(0.1, 1000),
        waiting_s=st.floats(0, 1e4),
    )


@given(
    st.lists(reports(), min_size=1, max_size=20),
    st.integers(0, 5),
    st.integers(0, 50),
    st.floats(0.1, 100),
)
def test_always_within_least_and_most(
    seen: list[Reported], least: int, beyond: int, every_s: float
) -> None:
    """Whatever is reported, and whenever, the bounds hold."""
    goal = ScalingGoal(least=least, most=least + beyond + 1)
    memory = ScalingMemory()
    for turn, reported in enumerate(seen):
        wanted, memory = decide(reported, goal, memory, turn * every_s)

        assert goal.least <= wanted <= goal.most


@given(reports(), st.floats(1, 100), st.floats(0, 1000))
def test_more_work_never_needs_fewer(reported: Reported, times: float, waiting_s: float) -> None:
    """With times as much that arrives, or more that waits, no fewer replicas are needed."""
    more_waiting = replace(reported, waiting_s=reported.waiting_s + waiting_s)
    calm = replace(reported, waiting_s=0)
    more = replace(calm, load=times * calm.load, latest=times * calm.latest)

    assert replicas_needed(more_waiting, GOAL) >= replicas_needed(reported, GOAL)
    assert replicas_needed(more, GOAL) >= replicas_needed(calm, GOAL)


@given(st.floats(0.01, 500), st.floats(0.1, 200))
def test_what_is_needed_meets_the_goal(load: float, batch_ms: float) -> None:
    """With as many, the mean wait of M/M/1 is within the goal; one fewer would be too busy."""
    reported = replace(STEADY, load=load, latest=load, batch_ms=batch_ms)
    needed = replicas_needed(reported, GOAL)

    def wait_ms(replicas: int) -> float:
        share = load / replicas if replicas else math.inf
        return batch_ms * share / (1 - share) if share < 1 else math.inf

    assert wait_ms(needed) <= GOAL.queue_ms * (1 + 1e-6)
    too_few = needed - 1
    assert wait_ms(too_few) > GOAL.queue_ms * (1 - 1e-6) or load / too_few > 0.9 - 1e-6


def test_a_step_is_followed_in_one_decision() -> None:
    """From a tenth to eight tenths: the first decision that sees a second of it wants all it needs."""
    before = replace(STEADY, load=2.0, latest=2.0, latest_texts=670)
    after = replace(STEADY, load=3.4, latest=16.0, latest_texts=5300, waiting_s=5.0)
    low, memory = decide(before, GOAL, ScalingMemory(), 0.0)
    high, _ = decide(after, GOAL, memory, 1.0)

    assert low == 3
    assert high >= math.ceil(16.0 / busy_share(10.0, GOAL))


def test_down_only_after_it_was_enough_for_a_while() -> None:
    """A dip shorter than keep_s changes nothing; then it goes to the most that was needed meanwhile."""
    memory = ScalingMemory()
    wanted = []
    for second in range(200):
        load = 8.0 if second == 0 else 4.0 if second == 30 else 1.0
        reported = replace(STEADY, load=load, latest=load)
        count, memory = decide(reported, GOAL, memory, float(second))
        wanted.append(count)

    high, middle, low = (
        replicas_needed(replace(STEADY, load=load, latest=load), GOAL) for load in (8.0, 4.0, 1.0)
    )
    assert wanted == [high] * 60 + [middle] * 30 + [low] * 110


def test_a_clock_set_back_delays_nothing_for_longer_than_it_would() -> None:
    """An hour earlier by the clock, what was needed is kept for keep_s, and the last for idle_s."""
    goal = replace(GOAL, least=0)
    high, memory = decide(replace(STEADY, load=8.0, latest=8.0), goal, ScalingMemory(), 3600.0)
    counts = []
    for second in range(400):
        count, memory = decide(NOTHING, goal, memory, float(second))
        counts.append(count)

    assert counts == [high] * 60 + [1] * 240 + [0] * 100


def test_to_zero_and_back() -> None:
    """Where none is the least, the last goes only after idle_s without work; work brings it back."""
    goal = replace(GOAL, least=0)
    memory = ScalingMemory()
    count, memory = decide(STEADY, goal, memory, 0.0)
    assert count > 1
    counts = []
    for second in range(1, 400):
        count, memory = decide(NOTHING, goal, memory, float(second))
        counts.append(count)
    assert counts.index(0) + 1 == goal.idle_s
    assert set(counts[60:299]) == {1}
    back, _ = decide(replace(STEADY, load=0.01, latest=0.01), goal, memory, 400.0)
    assert back == 1


@pytest.mark.parametrize("texts", [1, 4])
def test_few_texts_are_no_rise(texts: int) -> None:
    """A handful of texts in the last moment may be chance: they alone move nothing."""
    reported = replace(STEADY, load=1.0, latest=5.0, latest_texts=texts)

    assert expected_load(reported, GOAL) == 1.0


def test_a_rise_is_followed_ahead() -> None:
    """What surely rose is expected to rise on for as long as a replica takes to start."""
    reported = replace(STEADY, load=2.0, latest=4.0, latest_texts=1e12)

    assert expected_load(reported, GOAL) == pytest.approx(
        4.0 + (4.0 - 2.0) / 5 * GOAL.lead_s, rel=1e-4
    )
