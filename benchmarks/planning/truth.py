"""What batches really take on the simulated machine. Pure: a grid and a seed in, numbers out.

The truth is a smooth surface through the measured grid (`smoothed`), times noise. Smooth, because a
grid's bumps are the measurement's: who got the best of several parameters in hindsight would find
those. It must not favour us, so the planner never sees it:

- its form (a quadratic in the logarithms, which bends in both directions) is not our cost model's
  (four terms that add up), which can only come near it;
- our planner is told another grid, with noise on every cell and of a machine a quarter faster; from
  there it learns by the noisy times of its own batches, as in production, and that counts, too;
- the other policies need no cost to decide, and get the parameter that did best in hindsight.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np

from serving.cost import GridCost
from serving.package import CostGrid

NOISE = 0.15  # standard deviation of the log of a batch's time; shared machines spread by more
TOLD_NOISE = 0.15  # the same for a cell of the grid that our planner is told
TOLD_SPEED = 1.25  # the grid it is told is of a machine so many times faster
_LARGEST_BATCH = 32
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, _LARGEST_BATCH)
_LENGTH_STEP = 8
_HUBER = 0.1  # of the log: from 10 % off, a cell pulls with constant force


class Truth:
    """Milliseconds of batches on one lane, all lanes being busy."""

    def __init__(self, grid: CostGrid, *, seed: int, noise: float = NOISE) -> None:
        self._cost, self._noise = GridCost(grid), noise
        self._chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret

    def typical_ms(self, batch: int, length: int) -> float:
        """The median of what *batch* texts take, the longest having *length* tokens."""
        return self._cost.ms(batch, length)

    def draw_ms(self, batch: int, length: int) -> float:
        """What such a batch takes this time."""
        return self._cost.ms(batch, length) * math.exp(self._noise * self._chance.gauss())


def smoothed(grid: CostGrid) -> CostGrid:
    """The robust quadratic fit of log ms over log batch and log length, read off on a finer grid."""
    shapes = list(itertools.product(grid.batches, grid.lengths))
    rows = np.array([_log_terms(*shape) for shape in shapes])
    log_ms = np.log([ms for row in grid.ms for ms in row])
    weights = np.ones(len(shapes))
    for _ in range(20):  # reweighted least squares; settles in fewer
        root = np.sqrt(weights)
        fitted = np.linalg.lstsq(rows * root[:, None], log_ms * root, rcond=None)[0]
        weights = np.minimum(1.0, _HUBER / np.maximum(np.abs(rows @ fitted - log_ms), 1e-9))
    first, last = grid.lengths[0], grid.lengths[-1]
    lengths = (*range(first, last, _LENGTH_STEP), last)
    ms = np.exp(np.array([[_log_terms(b, n) for n in lengths] for b in _BATCHES]) @ fitted)
    return CostGrid(
        batches=_BATCHES,
        lengths=lengths,
        ms=tuple(tuple(map(float, row)) for row in ms),
        threads=grid.threads,
        machine=grid.machine,
    )


def _log_terms(batch: int, length: int) -> tuple[float, ...]:
    b, n = math.log(batch), math.log(length)
    return 1.0, b, n, b * b, b * n, n * n


def told_grid(grid: CostGrid, *, seed: int) -> CostGrid:
    """What our planner reads in its package: wrong in speed, and noisy."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret

    def told(ms: float) -> float:
        return ms / TOLD_SPEED * math.exp(TOLD_NOISE * chance.gauss())

    return CostGrid(
        batches=grid.batches,
        lengths=grid.lengths,
        ms=tuple(tuple(told(ms) for ms in row) for row in grid.ms),
        threads=grid.threads,
        machine=grid.machine,
    )


def offline_texts_per_s(tokens: Sequence[int], grid: CostGrid, lanes: int) -> float:
    """The ceiling: texts/s when all are known beforehand and cut into the cheapest batches.

    Cost never falls with length, so some best batches are runs of the texts sorted by length: the
    cheapest way to cut the first n is the cheapest last run after the cheapest way before it.
    """
    cost, ordered = GridCost(grid), sorted(tokens)
    known: dict[tuple[int, int], float] = {}
    best_ms = [0.0]
    for end, length in enumerate(ordered, 1):
        ways = []
        for batch in range(1, min(end, _LARGEST_BATCH) + 1):
            if (batch, length) not in known:
                known[batch, length] = cost.ms(batch, length)
            ways.append(best_ms[end - batch] + known[batch, length])
        best_ms.append(min(ways))
    return lanes * len(tokens) / best_ms[-1] * 1e3
