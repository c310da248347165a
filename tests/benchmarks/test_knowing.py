"""Laws of the cache's benchmark: its ratios are of one round, and repeated texts follow Zipf's law."""

from __future__ import annotations

import io
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from benchmarks.knowing import CacheRecord, _hit_share
from benchmarks.workloads import zipf


def record(**changes: Any) -> CacheRecord:
    """Of three rounds, of which the second was slow for all."""
    settings: dict[str, Any] = {
        "rates": {
            "computed": [50.0, 10.0, 60.0],
            "known": [500.0, 100.0, 600.0],
            "zipf": [100.0, 40.0, 240.0],
        },
        "hit_shares": [0.5, 0.7, 0.6],
        "errors": 0,
        "scenario": {"connections": 32, "rounds": 3, "distinct": 10_000, "exponent": 1.1},
        "package_digest": "d" * 64,
    }
    return CacheRecord(**(settings | changes))


def test_ratios_are_of_the_same_round() -> None:
    """A slow round slows both: its ratio is as good as any."""
    assert record().times("known") == [10.0, 10.0, 10.0]
    assert record().document()["known_times"] == 10.0
    assert record().document()["zipf_times"] == 4.0


def test_the_table_has_every_way() -> None:
    """Rates with their spread, ratios, the share known, and the goal."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(record())
    text = console.export_text()

    for words in ("computed", "known", "zipf", "10.00 x", "100.0-600.0", "60% known", "5 x"):
        assert words in text


def test_draws_follow_zipfs_law() -> None:
    """The first is drawn most; the n-th about as often as n^-exponent of it; equal seeds, equal draws."""
    texts = [f"text {n}" for n in range(1000)]
    drawn = zipf(texts, 2000, 3)
    counts = Counter(drawn)
    first = [sum(counts[text] for text in texts[a:b]) for a, b in pairwise((0, 1, 10, 100, 1000))]

    assert len(drawn) == 2000
    assert drawn == zipf(texts, 2000, 3)
    weights = [sum(1 / n for n in range(a + 1, b + 1)) for a, b in pairwise((0, 1, 10, 100, 1000))]
    for seen, weight in zip(first, weights, strict=True):
        wanted = len(drawn) * weight / sum(weights)
        assert abs(seen - wanted) < 5 * wanted**0.5  # five standard deviations


@pytest.mark.parametrize(
    ("grown", "share"), [((0, 0, 0), 0.0), ((3, 1, 4), 0.5), ((8, 0, 0), 1.0), ((0, 0, 9), 0.0)]
)
def test_the_share_is_of_what_came_meanwhile(grown: tuple[int, int, int], share: float) -> None:
    """What was known or asked before does not count."""
    names = ("cache_memory_hits", "cache_joined", "cache_misses")
    before = dict(zip(names, (100, 50, 70), strict=True)) | {"texts": 9}
    after = {name: before[name] + more for name, more in zip(names, grown, strict=True)}

    assert _hit_share(before, after | {"texts": 10}) == share
