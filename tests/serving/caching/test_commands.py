"""Laws of `miniml cache`: it says what the server says, and one sentence when there is none."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from rich.console import Console

from serving.caching.commands import cache_stats, clear_cache
from serving.client import RemoteError
from serving.options import CacheOptions
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]


def test_stats_and_clear(package: Package, listening: Listening) -> None:
    """Hits and misses as they came; clearing says how many it forgot, and they are computed again."""
    with listening(package) as url:
        options = CacheOptions(url=url)
        for _ in range(2):
            httpx.post(f"{url}/predict", json={"texts": ["good", "bad soup"]})
        before, cleared = cache_stats(options), clear_cache(options)
        httpx.post(f"{url}/predict", json={"text": "good"})
        after = cache_stats(options)

    assert (before.numbers["cache_entries"], before.hit_share) == (2, 0.5)
    assert cleared.document() == {"cleared": 2}
    assert (after.numbers["cache_entries"], after.numbers["cache_misses"]) == (1, 3)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(before, cleared)
    assert "50.0%" in (text := console.export_text())
    assert "Forgot 2 answers." in text


def test_a_server_that_keeps_none_says_so(package: Package, listening: Listening) -> None:
    """With the option that would; and an address where nobody is, or no miniml, is one sentence."""
    with listening(package, cache_bytes=0) as url, pytest.raises(RemoteError, match="keeps no"):
        cache_stats(CacheOptions(url=url))
    with pytest.raises(RemoteError, match="No answer"):
        cache_stats(CacheOptions(url="http://127.0.0.1:9"))
