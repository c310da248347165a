"""The cost model: milliseconds of one lane for a batch of texts padded to a length.

Pure: numbers in, numbers out. The grid is measured elsewhere; between its points cost is
interpolated bilinearly, beyond them it grows in proportion to the padded tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

from serving.package import CostGrid

Points = tuple[int, ...]


class CostModel:
    """ms(batch, length), monotone in both, from a measured grid."""

    def __init__(self, grid: CostGrid) -> None:
        self._batches, self._lengths = grid.batches, grid.lengths
        self._ms = _monotone(grid.ms)
        # Lengths repeat all day; the planner asks thousands of times a second.
        self.ms = lru_cache(maxsize=65536)(self._interpolate)

    def _interpolate(self, batch: int, length: int) -> float:
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
