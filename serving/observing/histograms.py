"""Histograms as Prometheus reads them, of numbers that are only counted until somebody asks.

Its own client looks at every bucket, and takes a lock, for each number that it is shown: several times
what counting takes, and a request shows it seven.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.utils import INF, floatToGoString


class Spread:
    """Numbers by size: `counts` up to and with each of *edges*, and then beyond; their sum in `total`.

    Of one thread.
    """

    __slots__ = ("_edges", "counts", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float) -> int:
        """Count *value*; the place of what it was counted as."""
        place = bisect_left(self._edges, value)
        self.counts[place] += 1
        self.total += value
        return place

    def buckets(self) -> list[tuple[str, int]]:
        """As the text format has them."""
        return _buckets(self._edges, self.counts)


def histogram(
    name: str, told: str, *, edges: Sequence[float], counts: Sequence[int], total: float
) -> Metric:
    """A histogram of *counts* up to and with each of *edges*, and then beyond; total: of what was seen."""
    return HistogramMetricFamily(name, told, buckets=_buckets(edges, counts), sum_value=total)


def histograms(name: str, told: str, *, label: str, by: Mapping[str, Spread]) -> Metric:
    """One for each value of *label*."""
    family = HistogramMetricFamily(name, told, labels=[label])
    for value, spread in by.items():
        family.add_metric([value], spread.buckets(), spread.total)
    return family


def _buckets(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    below = 0
    buckets = []
    for edge, count in zip((*edges, INF), counts, strict=True):
        below += count
        buckets.append((floatToGoString(edge), below))
    return buckets
