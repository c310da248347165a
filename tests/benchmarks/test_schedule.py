"""A schedule is due as often as it says, the same for the same seed, and rises by its shape."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.schedule import STEPS, Arrivals, Schedule, Shape, level_at, stages

schedules = st.builds(
    Schedule,
    rate_per_s=st.floats(0.1, 500),
    warmup_s=st.sampled_from([0.0, 0.7, 2.0]),
    duration_s=st.floats(0.5, 10),
    arrivals=st.sampled_from(["poisson", "constant"]),
    shape=st.sampled_from(["steady", "ramp", "steps"]),
    seed=st.integers(0, 5),
)


@given(schedules)
def test_as_many_are_due_as_the_rate_says(schedule: Schedule) -> None:
    """Up to the end of each stage the number due is its rate times its time, to the nearest whole."""
    due_s = schedule.due_s()
    area = 0.0

    for stage in schedule.stages:
        area += stage.area
        assert abs(sum(at <= stage.end_s for at in due_s) - area) <= 0.5 + 1e-6
    assert due_s == sorted(due_s)
    assert all(0 <= at <= schedule.warmup_s + schedule.duration_s for at in due_s)


@given(schedules)
def test_equal_schedules_are_due_at_equal_times(schedule: Schedule) -> None:
    """Nothing but the schedule decides when a request is due."""
    assert schedule.due_s() == schedule.due_s()


def test_another_seed_is_another_load_of_the_same_size() -> None:
    """Seeds change when requests are due, and not how many."""
    first, second = (
        Schedule(rate_per_s=80, warmup_s=1, duration_s=5, seed=seed).due_s() for seed in (1, 2)
    )

    assert first != second
    assert len(first) == len(second) == 480


def test_constant_arrivals_are_evenly_spaced() -> None:
    """Without chance, the time between two requests is one over the rate."""
    due_s = Schedule(rate_per_s=40, warmup_s=1, duration_s=5, arrivals="constant").due_s()

    assert [b - a for a, b in pairwise(due_s)] == pytest.approx([1 / 40] * 239)


def test_poisson_arrivals_are_by_chance() -> None:
    """Counts of single seconds vary as a Poisson process's do: their variance is about their mean."""
    due_s = Schedule(rate_per_s=50, warmup_s=0, duration_s=400, seed=3).due_s()
    counts = [0] * 400
    for at in due_s:
        counts[int(at)] += 1

    # 400 counts: the ratio's standard deviation is 0.07.
    assert 0.7 < statistics.pvariance(counts) / statistics.fmean(counts) < 1.3


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_a_ramp_rises_in_a_line(arrivals: Arrivals) -> None:
    """From a fifth of the rate to all of it, half of the time sees a third of the requests."""
    due_s = Schedule(
        rate_per_s=1000, warmup_s=0, duration_s=10, shape="ramp", arrivals=arrivals
    ).due_s()

    assert len(due_s) == 6000
    # (200 + 600) / 2 * 5 s of (200 + 1000) / 2 * 10 s; by chance, give or take 37.
    assert sum(at < 5 for at in due_s) == pytest.approx(2000, abs=200)


@given(st.sampled_from(["steady", "ramp", "steps"]), st.floats(0.1, 1000), st.floats(0, 5))
def test_stages_follow_one_another(shape: Shape, level: float, warmup_s: float) -> None:
    """Stages leave no gap, end at the level asked for, and the level between them is theirs."""
    found = stages(shape, level, warmup_s=warmup_s, duration_s=10)

    assert found[0].begin_s == 0
    assert found[-1].end_s == warmup_s + 10
    assert all(a.end_s == pytest.approx(b.begin_s) for a, b in pairwise(found))
    assert found[-1].last == pytest.approx(level)
    assert all(level_at(found, stage.begin_s) == stage.first for stage in found)
    if shape != "steady":
        assert found[0].first == level / STEPS
