"""The cost model: milliseconds of one lane for a batch of texts padded to a length.

Pure: numbers in, numbers out. A transformer's time for B texts of T tokens is a call's own, plus
something a text, a token, and a pair of tokens: `c0 + c1 B + c2 BT + c3 BT^2`, no coefficient
negative. The four are fitted to a measured grid and again to every batch that was run, in relative
error and robustly, so that what else the machine does moves them little. A grid read off point by
point (`GridCost`) says what was measured, but its noise would be copied into every plan.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.package import CostGrid

Vector = npt.NDArray[np.float64]
Points = tuple[int, ...]
Shape = tuple[int, int]  # texts, and tokens of the longest
_TERMS = 4
# A measurement beyond this factor of what was expected counts as if it were at it: a lane that lost
# its core says nothing about the graph.
_OUTLIER = 3.0
_HUBER = 0.15  # relative error from which a measurement pulls with constant force
# The machine's speed follows about the last 50 batches, the shape about the last 500 beside the grid.
_SPEED_RATE, _MEMORY = 1 / 50, 1 - 1 / 500
_GRID_WEIGHT = 50.0  # in batches
_REFIT_EVERY = 32
_BOUND = 8.0  # at most so many times faster or slower than the grid said
# Which terms are not 0, row by row (15, 4). Tokens first: one point fits any term, and a batch that
# costs nothing is the worst guess.
_CHOICES = np.array(
    [
        [term in chosen for term in range(_TERMS)]
        for count in range(1, _TERMS + 1)
        for chosen in itertools.combinations((2, 1, 0, 3), count)
    ],
    dtype=np.float64,
)


class CostModel:
    """ms(batch, length), monotone in both; learns from `observe`.

    error: mean relative error of the last predictions (about 50 of them), as the batches showed.
    """

    def __init__(self, grid: CostGrid) -> None:
        self._grid_terms, self._grid_ms = _points(grid)
        self._at_start = tuple(map(float, _fit_robustly(self._grid_terms, self._grid_ms)))
        self._now = self._at_start
        self._known: dict[Shape, float] = {}  # of `_now`: the planner asks for the same ones often
        self._speed = 0.0  # log of how many times slower than the grid this machine is now
        self._seen = np.zeros((_TERMS, _TERMS)), np.zeros(_TERMS)
        self._observations = 0
        self.error = 0.0

    def ms(self, batch: int, length: int) -> float:
        """Milliseconds for *batch* texts, the longest having *length* tokens; both at least 1."""
        known = self._known  # first: what is computed beside a refit must not outlive it
        if (found := known.get((batch, length))) is None:
            start_ms = _surface(self._at_start, batch, length)
            now_ms = _surface(self._now, batch, length)
            found = known[batch, length] = min(max(now_ms, start_ms / _BOUND), start_ms * _BOUND)
        return found

    def observe(self, batch: int, length: int, ms: float) -> None:
        """A batch took *ms*, above 0."""
        expected_ms = self.ms(batch, length)
        ms = min(max(ms, expected_ms / _OUTLIER), expected_ms * _OUTLIER)
        self.error += _SPEED_RATE * (abs(ms / expected_ms - 1) - self.error)
        slower = math.log(ms / _surface(self._at_start, batch, length)) - self._speed
        self._speed += _SPEED_RATE * min(max(slower, -1.0), 1.0)
        weight = _huber(expected_ms / ms - 1)
        row = np.array(_terms(batch, length)) / ms
        products, target = self._seen
        products *= _MEMORY
        products += np.multiply.outer(weight * row, row)
        target *= _MEMORY
        target += weight * row
        self._observations += 1
        if self._observations % _REFIT_EVERY == 0:
            self._refit()

    def _refit(self) -> None:
        """Fit the grid, at the machine's present speed, and what was seen."""
        ms = self._grid_ms * math.exp(self._speed)
        rows = self._grid_terms / ms[:, None] * math.sqrt(_GRID_WEIGHT / len(ms))
        target = rows.T @ np.full(len(ms), math.sqrt(_GRID_WEIGHT / len(ms)))
        fitted = _non_negative(rows.T @ rows + self._seen[0], target + self._seen[1])
        self._now, self._known = tuple(map(float, fitted)), {}


def _terms(batch: int, length: int) -> tuple[float, float, float, float]:
    return 1.0, batch, batch * length, batch * length * length


def _surface(coefficients: tuple[float, ...], batch: int, length: int) -> float:
    call, text, token, pair = coefficients
    return call + batch * (text + length * (token + length * pair))


def _points(grid: CostGrid) -> tuple[Vector, Vector]:
    """The grid as rows of terms (points, 4) and milliseconds (points,)."""
    shapes = list(itertools.product(grid.batches, grid.lengths))
    terms = np.array([_terms(batch, length) for batch, length in shapes])
    return terms, np.array([ms for row in grid.ms for ms in row], dtype=np.float64)


def _fit_robustly(terms: Vector, ms: Vector) -> Vector:
    """Coefficients (4,), none negative, of least Huber loss of the relative error."""
    rows = terms / ms[:, None]
    weights = np.ones(len(ms))
    for _ in range(20):  # reweighted least squares; settles in fewer
        fitted = _non_negative((rows * weights[:, None]).T @ rows, rows.T @ weights)
        weights = np.array([_huber(error) for error in rows @ fitted - 1])
    return fitted


def _huber(error: float) -> float:
    return min(1.0, _HUBER / max(abs(error), 1e-9))


def _non_negative(products: Vector, target: Vector) -> Vector:
    """The x >= 0 of least x'Px - 2t'x, by trying every set of terms that are not 0: `_CHOICES`."""
    size = np.sqrt(np.maximum(np.diag(products), 1e-300))  # the terms differ by powers of ten
    scaled, wanted = products / np.outer(size, size), target / size
    # All of them in one call: a term left out is an equation of its own, whose answer is 0.
    parts = scaled * (_CHOICES[:, :, None] * _CHOICES[:, None, :])
    parts += np.where(_CHOICES, 1e-9, 1.0)[:, :, None] * np.eye(_TERMS)
    found = np.linalg.solve(parts, (_CHOICES * wanted)[:, :, None])[:, :, 0]
    losses = ((found @ scaled) * found).sum(axis=1) - 2 * found @ wanted
    best, least = np.zeros(_TERMS), 0.0
    for x, loss, smallest in zip(found, losses.tolist(), found.min(axis=1).tolist(), strict=True):
        if smallest >= 0 and loss < least - 1e-6 * abs(least):
            best, least = x, loss
    return best / size


class GridCost:
    """ms(batch, length), monotone in both, read off a measured grid: what export reports.

    Between its points cost is interpolated bilinearly, beyond them it grows with the padded tokens.
    """

    def __init__(self, grid: CostGrid) -> None:
        self._batches, self._lengths = grid.batches, grid.lengths
        self._ms = _monotone(grid.ms)

    def ms(self, batch: int, length: int) -> float:
        """Milliseconds for *batch* texts, the longest having *length* tokens; both at least 1."""
        top_batch, top_length = self._batches[-1], self._lengths[-1]
        beyond = max(1.0, batch / top_batch) * max(1.0, length / top_length)
        row, row_share = _place(self._batches, min(batch, top_batch))
        column, column_share = _place(self._lengths, min(length, top_length))
        low = _between(self._ms[row], column, column_share)
        high = _between(self._ms[min(row + 1, len(self._ms) - 1)], column, column_share)
        return beyond * (low + row_share * (high - low))


def _monotone(grid: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """A noisy grid made to never fall along either axis: the running maximum of both."""
    rows: list[tuple[float, ...]] = []
    for row in grid:
        so_far: list[float] = []
        for column, value in enumerate(row):
            above = rows[-1][column] if rows else 0.0
            before = so_far[-1] if so_far else 0.0
            so_far.append(max(value, above, before))
        rows.append(tuple(so_far))
    return tuple(rows)


def _place(points: Points, value: int) -> tuple[int, float]:
    """The interval of ascending *points* that holds *value*, and how far along it lies (0..1)."""
    left = max(0, min(bisect_right(points, value) - 1, len(points) - 2))
    if len(points) == 1 or value <= points[0]:
        return 0, 0.0
    return left, (value - points[left]) / (points[left + 1] - points[left])


def _between(row: Sequence[float], column: int, share: float) -> float:
    right = row[min(column + 1, len(row) - 1)]
    return row[column] + share * (right - row[column])
