"""Laws of the live view: what it shows between two looks is what was done between them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import httpx
import pytest
from rich.console import Console

from serving.client import RemoteError
from serving.observing.metrics import side_by_side
from serving.observing.top import NoSuchPace, read_look, table_of, take_look, top
from serving.options import TopOptions
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]


def cells(table: object) -> dict[str, str]:
    """Name -> value, as shown."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    rows = [line.strip("│ ").split("│") for line in console.export_text().splitlines()]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}


def test_a_second_shows_what_was_done_in_it(package: Package, listening: Listening) -> None:
    """Rates by the time between the looks, shares of the work between them, of all replicas."""
    with listening(package) as url, httpx.Client(base_url=url) as client:
        client.post("/predict", json={"texts": ["bad"] * 7})
        before = take_look(client, url)
        for _ in range(3):
            client.post("/predict", json={"texts": ["good", "bad soup"]})
        client.post("/predict", json={"text": ""})
        now = replace(take_look(client, url), at_s=before.at_s + 2.0)
        shown = cells(table_of(before, now, url))
        text = client.get("/metrics").content

    assert (shown["requests/s"], shown["refused/s"], shown["texts/s"]) == ("1.5", "0.5", "3.0")
    assert shown["known answers"] == "66.7%"  # of six texts two were new
    assert float(shown["p99 at most, ms"]) >= float(shown["p50 at most, ms"]) > 0
    one, two = (
        read_look(side_by_side([(name, text) for name in names]).decode(), at_s=0.0)
        for names in (["a"], ["a", "b"])
    )
    assert (one.replicas, two.replicas) == (1, 2)
    assert two.sums["answered"] == 2 * one.sums["answered"]


def test_an_idle_second_has_no_shares(package: Package, listening: Listening) -> None:
    """Nothing done: rates are zero, and what cannot be said is not."""
    with listening(package) as url, httpx.Client(base_url=url) as client:
        look = take_look(client, url)
    shown = cells(table_of(look, replace(look, at_s=look.at_s + 1.0), url))

    assert shown["requests/s"] == "0.0"
    assert shown["known answers"] == shown["p99 at most, ms"] == shown["texts a batch"] == "-"


def test_drift_shows_once_there_is_one(
    package: Package, listening: Listening, draw: Callable[[int, int], list[str]]
) -> None:
    """No row before; then one for each distribution, with the mark it reached, of the worst replica."""
    with listening(package) as url, httpx.Client(base_url=url) as client:
        early = take_look(client, url)
        client.post("/predict", json={"texts": draw(400, 1)})
        calm = client.get("/metrics").content
        for _ in range(4):
            client.post("/predict", json={"texts": ["bad cold soup"] * 500})
        changed = client.get("/metrics").content
    both = side_by_side([("a", changed), ("b", calm)]).decode()
    shown = {
        name: cells(table_of(early, replace(look, at_s=early.at_s + 1.0), url))
        for name, look in {
            "early": early,
            "calm": read_look(calm.decode(), at_s=0.0),
            "both": read_look(both, at_s=0.0),
        }.items()
    }

    assert not [name for name in shown["early"] if "drift" in name]
    assert shown["calm"]["drift of labels"].endswith(", stable")
    assert shown["both"]["drift of confidence"].endswith(", shifted")


def test_it_looks_as_often_as_told(package: Package, listening: Listening) -> None:
    """And ends; a pace that is none, and a server that is none, are one sentence."""
    with listening(package) as url:
        top(TopOptions(url=url, every_s=0.01, looks=2))
    with pytest.raises(NoSuchPace, match="above 0"):
        top(TopOptions(every_s=0.0))
    with pytest.raises(RemoteError, match="No answer"):
        top(TopOptions(url="http://127.0.0.1:9"))
