"""What grew, told from what went up and down. Pure.

Medians of the first and of the last fifth, and the median of the slopes of all pairs (Theil and
Sen): a moment in which a process was copied, or a neighbour started, moves neither.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

MOST_GROWTH = 0.02  # that a soak allows
LEAST = 10  # values; of fewer a fifth is one look, and its median luck
_PARTS = 5


def fifths(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and of the last fifth. Raises ValueError below `LEAST` values."""
    if len(values) < LEAST:
        raise ValueError(f"{len(values)} values, and {LEAST} at least show what grows")
    size = len(values) // _PARTS
    return statistics.median(values[:size]), statistics.median(values[-size:])


def growth(values: Sequence[float]) -> float | None:
    """How much more the last fifth is than the first, as a share of it; None where it cannot be told."""
    if len(values) < LEAST:
        return None
    first, last = fifths(values)
    return last / first - 1 if first else None


def slope_per_hour(at_s: Sequence[float], values: Sequence[float]) -> float | None:
    """The middle slope of all pairs, an hour; None below `LEAST` values."""
    if len(values) < LEAST:
        return None
    first, second = np.triu_indices(len(values), 1)
    times, seen = np.asarray(at_s), np.asarray(values)
    slopes = (seen[second] - seen[first]) / (times[second] - times[first])
    return float(np.median(slopes)) * 3600
