"""Laws of the metrics: every request is counted once, and callers cannot make series."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import side_by_side
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
def client(package: Package, listening: Listening) -> Iterator[httpx.Client]:
    """Of a real server without a cache."""
    with listening(package, cache_bytes=0) as url, httpx.Client(base_url=url) as client:
        yield client


def series(text: str) -> Series:
    """Every sample by name and labels, as the official parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(client: httpx.Client) -> Series:
    """What the server says now."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return series(response.text)


def value(found: Series, name: str, **labels: str) -> float:
    """Of one sample; 0 when it is not there."""
    return found.get((name, frozenset(labels.items())), 0.0)


def test_every_request_is_counted_once_by_door_and_outcome(client: httpx.Client) -> None:
    """Answers and refusals, by every door; texts, labels and stages add up to them."""
    asked: list[tuple[str, str, Any, int]] = [
        ("predict", "/predict", {"texts": ["good", "bad soup", "cold"]}, 200),
        ("predict", "/predict", {"text": "good"}, 200),
        ("predict", "/predict", {"text": ""}, 422),
        ("hub", "/", {"inputs": ["good", "bad"]}, 200),
        ("classify", "/v1/classify", {"input": "good"}, 200),
        ("open_inference", "/v2/models/tiny/infer", {"inputs": []}, 422),
    ]
    for _, path, body, status in asked:
        assert client.post(path, json=body).status_code == status
    lines = [json.dumps({"text": "good"}), "{", json.dumps({"text": "bad"})]
    client.post("/predict", content="\n".join(lines), headers=NDJSON)
    outcomes = [(door, str(status)) for door, _, _, status in asked]
    outcomes += [("lines", "200"), ("lines", "400"), ("lines", "200")]
    found = read(client)

    for door, code in set(outcomes):
        counted = value(found, "miniml_requests_total", door=door, status=code)
        assert counted == outcomes.count((door, code)), (door, code)
    texts = 3 + 1 + 2 + 1 + 2
    answered = sum(code == "200" for _, code in outcomes)
    labels = sum(v for (name, _), v in found.items() if name == "miniml_answers_total")
    assert labels == value(found, "miniml_confidence_count") == texts
    assert value(found, "miniml_texts_computed_total") == texts
    assert value(found, "miniml_request_texts_count") == answered
    assert value(found, "miniml_request_texts_sum") == texts
    for stage in ("tokenize", "queue", "infer"):
        assert value(found, "miniml_stage_seconds_count", stage=stage) == answered
    assert value(found, "miniml_refused_total", door="predict", type="WrongInput") == 1


def test_callers_cannot_make_series(client: httpx.Client) -> None:
    """Whatever texts, paths, headers and methods they send, there are as many series as before."""
    client.post("/predict", json={"text": "good"})
    client.post("/predict", json={"text": ""})
    before = read(client).keys()
    for number in range(30):
        client.post("/predict", json={"text": f"good {number}"}, headers={"x-mine": str(number)})
        client.post("/predict", json={"text": "", f"field {number}": 1})
        client.get(f"/path/{number}")
        client.request(f"METHOD{number}", "/predict")

    assert read(client).keys() == before


def test_replicas_stand_side_by_side(client: httpx.Client) -> None:
    """Of two replicas every sample is there, told apart, and each family is described once."""
    text = client.get("/metrics").content
    together = side_by_side([("one", text), ("two", text)]).decode()
    alone, both = series(text.decode()), series(together)

    assert len(both) == 2 * len(alone)
    for (name, labels), seen in alone.items():
        for replica in ("one", "two"):
            assert both[name, labels | {("replica", replica)}] == seen
    types = [line for line in together.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
