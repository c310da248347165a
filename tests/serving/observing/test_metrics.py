"""Laws of the metrics: every request is counted once, and callers cannot make series."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.observing.answer_mix import AnswerMix
from serving.observing.drift import LEAST, WINDOW
from serving.observing.histograms import Spread, histograms
from serving.observing.metrics import side_by_side
from serving.observing.traffic import Traffic
from serving.package import Package
from serving.work import BATCH_EDGES, Tally, one_more

Listening = Callable[..., AbstractContextManager[str]]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
Draw = Callable[[int, int], list[str]]
DOCUMENTED = Path(__file__).parent.parent.parent.parent / "docs/metrics.md"
PROMTOOL = shutil.which("promtool")
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
    client.get("/nowhere")
    client.get("/predict")
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


def table(text: str) -> list[str]:
    """A row for each family of a page: name, type, labels but those of every family, and meaning."""
    rows = []
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le", "replica"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        names = ", ".join(f"`{label}`" for label in sorted(labels))
        rows.append(f"| `{name}` | {family.type} | {names} | {family.documentation} |")
    return rows


def test_everything_is_documented(page: str) -> None:
    """The table of docs/metrics.md is what a server with all options says of itself."""
    found = [
        line
        for line in DOCUMENTED.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]

    assert found == table(page), "\n".join(table(page))


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine (package prometheus)")
def test_promtool_finds_nothing_to_mend(page: str) -> None:
    """Names, units and descriptions are as Prometheus wants them, of one replica and of two."""
    for text in (page, side_by_side([(name, page.encode()) for name in "ab"]).decode()):
        done = subprocess.run(
            [str(PROMTOOL), "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_batches_are_counted_by_their_texts(client: httpx.Client) -> None:
    """Every batch once and every text once, whatever the planner made of them; lanes were busy."""
    for count in (1, 2, 30):
        client.post("/predict", json={"texts": ["good", "bad soup"] * count})
    found = read(client)

    assert value(found, "miniml_batch_texts_sum") == 2 * (1 + 2 + 30)
    assert value(found, "miniml_batch_texts_count") == value(found, "miniml_batches_total")
    assert value(found, "miniml_batch_texts_bucket", le="64.0") == value(
        found, "miniml_batches_total"
    )
    busy_s = value(found, "miniml_lanes_busy_seconds_total")
    assert busy_s >= value(found, "miniml_lanes_cpu_seconds_total") > 0
    assert value(found, "miniml_lanes") == value(found, "miniml_healthy") == 1


@given(st.lists(st.integers(1, 300), max_size=20))
def test_batch_sizes_are_counted_up_to_their_edges(batches: list[int]) -> None:
    """As many batches are counted up to each edge as have at most so many texts."""
    sizes = Tally().sizes
    for texts in batches:
        sizes = one_more(sizes, texts)

    for place, edge in enumerate((*BATCH_EDGES, math.inf)):
        assert sum(sizes[: place + 1]) == sum(texts <= edge for texts in batches)


@given(
    st.lists(st.floats(0, 1e6, exclude_min=True), min_size=1, max_size=8, unique=True).map(sorted),
    st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(0, 1e6), max_size=30)),
)
def test_numbers_are_counted_as_by_prometheus(
    edges: list[float], seen: dict[str, list[float]]
) -> None:
    """Its own histogram, shown the same numbers, writes the same page; also of those at an edge."""
    registry = CollectorRegistry()
    theirs = Histogram("seconds", "Told.", ["door"], buckets=edges, registry=registry)
    ours = {door: Spread(edges) for door in seen}
    for door, numbers in seen.items():
        child = theirs.labels(door)
        for number in [*numbers, *edges]:
            child.observe(number)
            ours[door].add(number)

    page = CollectorRegistry()
    page.register(Shows(histograms("seconds", "Told.", label="door", by=ours)))
    assert generate_latest(page) == generate_latest(registry)


class Shows(Collector):
    """One family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """As it is."""
        yield self._family


def test_a_package_may_come_while_somebody_reads() -> None:
    """It is loaded on another thread: the page is whole, and the next one has it."""
    traffic = Traffic()

    class Meanwhile(Counter[int]):
        """Counts by status, that take as long to read as another package to come."""

        def items(self) -> Any:
            traffic.of("another")
            return super().items()

    traffic.of("one").by_status = Meanwhile({200: 3})

    assert b'package_requests_total{package="one",status="200"} 3.0' in traffic.text()
    assert b'package="another"' in traffic.text()


def test_drift_shows_when_the_texts_change(client: httpx.Client, draw: Draw) -> None:
    """Nothing before there are enough answers; then stable on the exam's kind of texts, and not on others."""
    client.post("/predict", json={"texts": draw(LEAST - 1, 1)})
    early = read(client)
    client.post("/predict", json={"texts": draw(400, 2)})
    calm = read(client)
    for _ in range(4):
        client.post("/predict", json={"texts": ["bad cold soup"] * 500})
    changed = read(client)

    assert not [name for name, _ in early if name in {"miniml_drift", "miniml_drift_chance"}]
    for of in ("confidence", "labels"):
        chance = value(calm, "miniml_drift_chance", of=of)
        assert 0 <= value(calm, "miniml_drift", of=of) < max(0.1, chance)
    of_others = value(changed, "miniml_drift", of="confidence")
    assert of_others > max(0.25, value(changed, "miniml_drift_chance", of="confidence"))
    answers = [value(found, "miniml_drift_answers") for found in (early, calm, changed)]
    assert answers == [LEAST - 1, LEAST + 399, WINDOW]


def test_the_exam_stands_beside_what_is_live(client: httpx.Client, package: Package) -> None:
    """Its labels and confidences have the same series as the live ones, from the start."""
    found = read(client)
    exam = package.exam

    assert exam is not None
    for live, of_exam in {
        "miniml_answers_total": "miniml_exam_answers",
        "miniml_confidence_bucket": "miniml_exam_confidence_bucket",
    }.items():
        kinds = [{labels for name, labels in found if name == one} for one in (live, of_exam)]
        assert kinds[0] == kinds[1]
    assert value(found, "miniml_exam_answers", label="neutral") == exam.labels[1]
    assert value(found, "miniml_exam_confidence_count") == exam.rows


def test_a_package_without_exam_has_no_drift(
    make_package: Callable[..., Package], listening: Listening, draw: Draw
) -> None:
    """One of an older export serves as before, and says nothing of what it does not know."""
    with listening(make_package(exam_rows=0)) as url, httpx.Client(base_url=url) as client:
        client.post("/predict", json={"texts": draw(LEAST, 1)})
        names = {name for name, _ in read(client)}

    assert "miniml_answers_total" in names
    assert not [name for name in names if "drift" in name or "exam" in name]


def test_many_labels_are_few_series(package: Package) -> None:
    """Of a hundred labels fifty have a name; the others are counted together."""
    names = tuple(f"label {number}" for number in range(100))
    wide = replace(package, config=replace(package.config, labels=names), exam=None)
    mix = AnswerMix(wide)
    for number in range(100):
        mix.add(np.eye(100, dtype=np.float32)[number])
    samples = next(iter(mix.collect())).samples

    assert len(samples) == 51
    assert {sample.labels["label"]: sample.value for sample in samples}["(other)"] == 50
    assert sum(sample.value for sample in samples) == 100
