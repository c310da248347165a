"""Laws of the cost model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cost import CostModel
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


def test_cost_is_the_measurement_at_its_points() -> None:
    """Where the cost was measured, the model says what was measured."""
    ms = ((1.0, 2.0, 4.0), (3.0, 6.0, 12.0), (9.0, 18.0, 36.0))
    cost = CostModel(CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test"))

    assert [[cost.ms(b, n) for n in LENGTHS] for b in BATCHES] == [list(row) for row in ms]


def test_cost_between_and_beyond() -> None:
    """Between points cost is a straight line; beyond the last it grows with the padded tokens."""
    ms = ((1.0, 2.0, 4.0), (3.0, 6.0, 12.0), (9.0, 18.0, 36.0))
    cost = CostModel(CostGrid(batches=BATCHES, lengths=LENGTHS, ms=ms, threads=1, machine="test"))

    assert cost.ms(1, 20) == pytest.approx(1.5)
    assert cost.ms(1, 1) == pytest.approx(1.0)
    assert cost.ms(32, 256) == pytest.approx(36.0 * 2 * 2)


def test_cost_of_a_single_measurement() -> None:
    """One point is a grid, too."""
    cost = CostModel(CostGrid(batches=(1,), lengths=(8,), ms=((2.0,),), threads=1, machine="test"))

    assert (cost.ms(1, 4), cost.ms(1, 8), cost.ms(2, 16)) == (2.0, 2.0, 8.0)
