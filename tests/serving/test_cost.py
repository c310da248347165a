"""Laws of the cost model."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cost import CostModel, GridCost
from serving.package import CostGrid

BATCHES, LENGTHS = (1, 4, 16), (8, 32, 128)
NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@st.composite
def grids(draw: st.DrawFn) -> CostGrid:
    """Measured grids, noise and all: any positive numbers, also falling ones."""
    row = st.tuples(*[st.floats(0.01, 1000)] * len(LENGTHS))
    ms = draw(st.tuples(*[row] * len(BATCHES)))
    return CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test")


@NO_DEADLINE
@given(grids(), st.integers(1, 64), st.integers(1, 600), st.integers(0, 9), st.integers(0, 99))
def test_cost_never_falls(grid: CostGrid, batch: int, length: int, more: int, longer: int) -> None:
    """More texts or longer ones never cost less, however noisy the measurement was."""
    cost = CostModel(grid)

    assert cost.ms(batch + more, length + longer) >= cost.ms(batch, length) * (1 - 1e-9)


def true_ms(batch: int, length: int) -> float:
    """What a machine of the tests takes: a call, a text, a token, a pair of tokens."""
    return 0.5 + batch * (0.1 + length * (0.08 + length * 2.5e-4))


def grid_of(factor: Callable[[int, int], float]) -> CostGrid:
    """A grid of true times, each multiplied by what went wrong in measuring it."""
    ms = tuple(tuple(true_ms(b, n) * factor(b, n) for n in LENGTHS) for b in BATCHES)
    return CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test")


SHAPES = [(1, 8), (1, 20), (2, 12), (3, 100), (8, 64), (16, 128), (32, 256)]


def worst_error(cost: CostModel, slower: float = 1.0) -> float:
    """The largest relative error over SHAPES, on a machine that is *slower* by that factor."""
    return max(abs(cost.ms(b, n) / (slower * true_ms(b, n)) - 1) for b, n in SHAPES)


def test_a_clean_grid_is_learnt_exactly() -> None:
    """Between its points and beyond them, the model says what the machine would take."""
    assert worst_error(CostModel(grid_of(lambda *_: 1.0))) < 1e-3


@NO_DEADLINE
@given(st.lists(st.sampled_from([(b, n) for b in BATCHES for n in LENGTHS]), max_size=1))
def test_a_disturbed_point_disturbs_little(disturbed: list[tuple[int, int]]) -> None:
    """A point that took three times its time, as something else ran, is not copied into plans."""
    cost = CostModel(grid_of(lambda b, n: 3.0 if (b, n) in disturbed else 1.0))

    assert worst_error(cost) < 0.5


@NO_DEADLINE
@given(st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 2**32 - 1))
def test_it_learns_the_machine_it_runs_on(slower: float, seed: int) -> None:
    """From noisy batches of the shapes that come, costs follow another machine's, for others, too."""
    rng = random.Random(seed)
    cost = CostModel(grid_of(lambda *_: 1.0))
    for _ in range(600):
        batch, length = rng.choice([1, 1, 2, 4]), rng.randint(6, 40)
        cost.observe(batch, length, slower * true_ms(batch, length) * rng.choice([0.9, 1, 1, 1.1]))

    assert worst_error(cost, slower) < 0.25
    assert cost.error < 0.2


@NO_DEADLINE
@given(grids(), st.lists(st.tuples(st.integers(1, 32), st.integers(1, 512), st.floats(1e-3, 1e6))))
def test_nothing_seen_breaks_the_model(grid: CostGrid, seen: list[tuple[int, int, float]]) -> None:
    """Whatever is observed, costs stay positive, bounded and monotone."""
    cost, before = CostModel(grid), CostModel(grid)
    for batch, length, ms in seen * 8:
        cost.observe(batch, length, ms)

    for batch, length in SHAPES:
        start_ms = before.ms(batch, length)
        assert start_ms / 8.001 <= cost.ms(batch, length) <= start_ms * 8.001
        assert cost.ms(batch + 1, length) >= cost.ms(batch, length)
        assert cost.ms(batch, length + 1) >= cost.ms(batch, length)


def test_one_batch_out_of_line_changes_little() -> None:
    """A batch that lost its core for a second says next to nothing about the graph."""
    cost = CostModel(grid_of(lambda *_: 1.0))
    for n in range(64):
        cost.observe(2, 16, 1e4 if n == 40 else true_ms(2, 16))

    assert worst_error(cost) < 0.1


@NO_DEADLINE
@given(grids(), st.lists(st.tuples(st.sampled_from(SHAPES), st.floats(0.01, 1e3)), max_size=80))
def test_asking_changes_nothing(grid: CostGrid, seen: list[tuple[tuple[int, int], float]]) -> None:
    """Who was asked all the time says what one says who is asked for the first time."""
    asked, fresh = CostModel(grid), CostModel(grid)
    for (batch, length), ms in seen:
        for b, n in SHAPES:
            asked.ms(b, n)
        asked.observe(batch, length, ms)
        fresh.observe(batch, length, ms)

    assert [asked.ms(b, n) for b, n in SHAPES] == [fresh.ms(b, n) for b, n in SHAPES]


def test_cost_of_a_single_measurement() -> None:
    """One point is a grid, too: time goes by tokens."""
    cost = CostModel(CostGrid(batches=(1,), lengths=(8,), ms=((2.0,),), threads=1, machine="test"))

    assert cost.ms(1, 8) == pytest.approx(2.0, rel=1e-3)
    assert cost.ms(2, 16) == pytest.approx(8.0, rel=1e-3)


@NO_DEADLINE
@given(grids(), st.integers(1, 64), st.integers(1, 600), st.integers(0, 9), st.integers(0, 99))
def test_a_grid_never_falls(
    grid: CostGrid, batch: int, length: int, more: int, longer: int
) -> None:
    """More texts or longer ones never cost less, however noisy the measurement was."""
    cost = GridCost(grid)

    assert cost.ms(batch + more, length + longer) >= cost.ms(batch, length) * (1 - 1e-9)


def test_cost_is_the_measurement_at_its_points() -> None:
    """Where the cost was measured, the model says what was measured."""
    ms = ((1.0, 2.0, 4.0), (3.0, 6.0, 12.0), (9.0, 18.0, 36.0))
    cost = GridCost(CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test"))

    assert [[cost.ms(b, n) for n in LENGTHS] for b in BATCHES] == [list(row) for row in ms]


def test_cost_between_and_beyond() -> None:
    """Between points cost is a straight line; beyond the last it grows with the padded tokens."""
    ms = ((1.0, 2.0, 4.0), (3.0, 6.0, 12.0), (9.0, 18.0, 36.0))
    cost = GridCost(CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test"))

    assert cost.ms(1, 20) == pytest.approx(1.5)
    assert cost.ms(1, 1) == pytest.approx(1.0)
    assert cost.ms(32, 256) == pytest.approx(36.0 * 2 * 2)


def test_a_grid_of_a_single_measurement() -> None:
    """One point is a grid, too."""
    cost = GridCost(CostGrid(batches=(1,), lengths=(8,), ms=((2.0,),), threads=1, machine="test"))

    assert (cost.ms(1, 4), cost.ms(1, 8), cost.ms(2, 16)) == (2.0, 2.0, 8.0)
