"""Laws of `miniml shadow` and `miniml promote`: they say what the server found, and no more."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from registry import store
from serving.agreement import Counts, Opinion, wilson
from serving.client import Client, RemoteError
from serving.core import Core
from serving.lanes import Lanes
from serving.locate import locate_apart
from serving.options import PromoteOptions, ShadowOptions, StartShadowOptions
from serving.package import Package, open_package
from serving.protocols.surface import build_endpoint
from serving.rollout.following import Rollout
from serving.rollout.ledger import Ledger, Memory
from serving.rollout.shelf import Loaded, Shelf
from serving.rollout.wanted import Pinned, PinnedShare, Wanted, WantedChange, first
from serving.rollout.witness import Witness
from serving.settings import ServeSettings
from serving.shadow.commands import fetch, report, start, stop
from serving.shadow.promoting import NotPromoted, objection, promote
from serving.shadow.report import ShadowReport, ShadowState, reported

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
Draw = Callable[[int, int], list[str]]
MARKER = "marker"
CANDIDATE = "c" * 64


def settled(url: str) -> ShadowReport:
    """What it says once nothing waits for the candidate."""
    deadline_s = time.monotonic() + 60
    while True:
        found = fetch(url)
        if found.offered and not found.waiting:
            return found
        assert time.monotonic() < deadline_s, found
        time.sleep(0.02)


def series(url: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Of the shadow: by name, and by values of labels in order of the labels' names."""
    return {
        (
            sample.name.removeprefix("miniml_shadow_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        for sample in family.samples
        if sample.name.startswith("miniml_shadow_")
    }


@contextmanager
def changeable(package: Package) -> Iterator[str]:
    """The URL of a replica whose package may be changed, on a real socket and without Ray."""
    settings = ServeSettings(package="p", rollout_without_key=True)
    rollouts: list[Rollout] = []

    class Rollouts:
        """Of the one replica that there is."""

        async def states(self) -> list[dict[str, Any]]:
            return [await rollouts[0].state()]

        async def change(self, change: WantedChange) -> Wanted:
            return await rollouts[0].change(change)

    def load(source: Pinned) -> Loaded:
        witness = Witness()
        opened = open_package(locate_apart(source.package, source.digest))
        core = Core(opened, Lanes(count=1, threads=1), settings)
        endpoint = build_endpoint(core, settings, rollouts=Rollouts(), witnesses=[witness])
        return Loaded(source=source, core=core, endpoint=endpoint, witness=witness)

    start = first("tiny", str(package.folder), package.digest)
    shelf = Shelf(start.model(), load)
    rollouts.append(Rollout(Ledger(Memory(), "test"), shelf, start, replica="one"))
    server = uvicorn.Server(uvicorn.Config(shelf, port=0, log_level="error", lifespan="off"))
    listener = server.config.bind_socket()

    async def run() -> None:
        await server.serve([listener])
        await rollouts[0].close()
        await shelf.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with Client(url) as client:
            client.wait_ready(timeout_s=30)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def agreeing(agreed: int, texts: int, *, elsewhere: int = 0) -> ShadowReport:
    """Of one replica, and of some that have other packages."""
    counts = Counts()
    for number in range(texts):
        label = "a" if number < agreed else "b"
        opinions = [Opinion(given=(name,), scores={"a": 0.5, "b": 0.5}) for name in ("a", label)]
        counts.add(*opinions)
    state = ShadowState(
        champion="a" * 64,
        candidate=PinnedShare(package="reviews/4", digest=CANDIDATE, share=0.1),
        standing="comparing",
        counts=counts,
    )
    found = reported([*[None] * elsewhere, state])
    assert found
    return found


def test_report_metrics_and_page_say_the_same(
    make_package: MakePackage, listening: Listening, draw: Draw
) -> None:
    """Texts, agreement and pairs; by every door, and no text is in any of them."""
    texts = [f"{MARKER} {number} {text}" for number, text in enumerate(draw(40, 5))]
    with listening(make_package(), beside=make_package(seed=1)) as url:
        httpx.post(f"{url}/predict", json={"texts": texts[:20]})
        httpx.post(f"{url}/", json={"inputs": texts[20:30]})
        lines = "\n".join(json.dumps({"text": text}) for text in texts[30:])
        httpx.post(
            f"{url}/predict", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        httpx.post(f"{url}/predict", json={"text": ""})
        found = settled(url)
        shown = report(ShadowOptions(url=url))
        page = httpx.get(f"{url}/shadow").text
        metrics, told = httpx.get(f"{url}/metrics").text, series(url)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    table = console.export_text()

    assert shown.report == found == msgspec.json.decode(page, type=ShadowReport)
    assert shown.exit_code == 0
    assert (found.offered, found.compared, found.replicas) == (40, 40, {"comparing": 1})
    assert 0 < found.agreed.agreeing < 40
    assert told["texts_total", ("compared",)] == 40
    assert told["agreeing_total", ()] == found.agreed.agreeing
    pairs = {(each.champion, each.candidate): each.texts for each in found.agreed.disagreements}
    for (name, labels), count in told.items():
        if name == "disagreements_total":
            assert count == pairs.get((labels[1], labels[0]), 0)
    assert told["infer_seconds_count", ("candidate",)] == 40
    agreement = found.agreed.agreement
    assert agreement
    assert f"{agreement.share:.2%} ({agreement.low:.2%} to {agreement.high:.2%})" in table
    for label in found.agreed.labels:
        assert re.search(
            rf"^{label.label} +{label.champion} +{label.candidate} ", table, re.MULTILINE
        )
    assert MARKER not in page + metrics + table


def test_a_server_without_candidate_says_so(package: Package, listening: Listening) -> None:
    """One sentence with the way out, and no series."""
    with listening(package) as url:
        with pytest.raises(RemoteError, match="No candidate"):
            report(ShadowOptions(url=url))
        assert not series(url)


def test_a_candidate_that_is_down_is_a_failure(
    make_package: MakePackage, listening: Listening
) -> None:
    """The report says why, and the command's exit code that it is none."""
    with listening(make_package(), beside=make_package(task="multi_label")) as url:
        httpx.post(f"{url}/predict", json={"text": "good"})
        settled(url)
        shown = report(ShadowOptions(url=url))

    assert shown.exit_code == 1
    assert "multi_label" in shown.report.trouble[0]


@given(
    st.integers(1, 400).flatmap(lambda texts: st.tuples(st.integers(0, texts), st.just(texts))),
    st.floats(0, 1),
    st.integers(1, 400),
)
def test_promotion_needs_what_is_asked_for(
    of: tuple[int, int], min_agreement: float, min_texts: int
) -> None:
    """It is allowed just where enough texts were compared, and the interval lies above the agreement."""
    why = objection(agreeing(*of), CANDIDATE, min_agreement=min_agreement, min_texts=min_texts)

    assert (why is None) == (of[1] >= min_texts and wilson(*of)[0] >= min_agreement)


@pytest.mark.parametrize(
    ("found", "digest", "words"),
    [
        (agreeing(100, 100), "d" * 64, "reviews/4 (cccccccccccc)"),
        (agreeing(100, 100, elsewhere=2), CANDIDATE, "2 replica(s)"),
        (agreeing(0, 0), CANDIDATE, "0 texts were compared, and 50"),
        (agreeing(49, 49), CANDIDATE, "49 texts were compared, and 50"),
        (agreeing(95, 100), CANDIDATE, "agreed on 95 of 100 texts, 95.00% and .* 88.82%"),
    ],
    ids=["another candidate", "a rollout", "no text", "few texts", "too little agreement"],
)
def test_a_refusal_says_the_numbers(found: ShadowReport, digest: str, words: str) -> None:
    """Of what was seen and of what was asked for."""
    why = objection(found, digest, min_agreement=0.9, min_texts=50)

    assert why
    assert re.search(words if ".*" in words else re.escape(words), why)


def test_a_report_survives_the_wire() -> None:
    """What is read of its JSON is equal to it."""
    found = agreeing(3, 5)
    document: Any = json.loads(msgspec.json.encode(found))

    assert msgspec.convert(document, ShadowReport) == found


def test_a_candidate_is_promoted(make_package: MakePackage, draw: Draw) -> None:
    """Not before it has proved itself; then it answers, the alias names it, and nobody stands beside it."""
    old, new = make_package(seed=1), make_package(seed=1, exam_rows=100)
    version = store.publish(new.folder, name="tiny")
    with changeable(old) as url:
        options = PromoteOptions(package="tiny/1", url=url, min_texts=20, watch="0")
        with pytest.raises(RemoteError, match="No candidate"):
            promote(options)
        started = start(StartShadowOptions(package=str(new.folder), share="100%", url=url))
        with pytest.raises(NotPromoted, match="0 texts were compared, and 20"):
            promote(options)
        httpx.post(
            f"{url}/predict", json={"texts": [f"{n} {t}" for n, t in enumerate(draw(40, 6))]}
        )
        assert settled(url).compared == 40
        with pytest.raises(NotPromoted, match=r"91\.24% at least"):
            promote(options)
        with pytest.raises(NotPromoted, match="never published"):
            promote(replace(options, package=str(new.folder)))
        promoted = promote(replace(options, min_agreement=0.9))
        answer = httpx.post(f"{url}/predict", json={"text": "good"})
        with pytest.raises(RemoteError, match="No candidate"):
            report(ShadowOptions(url=url))

    assert started.report.replicas == {"comparing": 1}
    assert promoted.document()["texts"] == 40
    assert answer.headers["x-package-digest"] == new.digest == version.digest
    assert store.resolve("tiny@champion", kind="package").number == 1


def test_a_shadow_ends_and_another_begins(make_package: MakePackage) -> None:
    """A share is changed on the go; another candidate begins at nothing; ended, there is none."""
    old, one, two = (make_package(seed=seed) for seed in (1, 2, 3))
    with changeable(old) as url:
        start(StartShadowOptions(package=str(one.folder), share="100%", url=url))
        httpx.post(f"{url}/predict", json={"text": "good"})
        first_found = settled(url)
        again = start(StartShadowOptions(package=str(one.folder), share="20%", url=url)).report
        other = start(StartShadowOptions(package=str(two.folder), share="1", url=url)).report
        stop(ShadowOptions(url=url))
        state = httpx.get(f"{url}/rollout").json()

    assert (first_found.compared, again.compared, other.compared) == (1, 1, 0)
    assert (first_found.share, again.share, other.candidate) == (1.0, 0.2, two.digest)
    assert state["wanted"]["models"][0]["shadow"] is None


def test_a_package_that_is_watched_is_watched_on(make_package: MakePackage) -> None:
    """A shadow that is put beside a new package, and one that goes, does not end its judging."""
    old, new = make_package(seed=1), make_package(seed=2)
    change = {"package": str(new.folder), "digest": new.digest, "watch": {"for_s": 600}}
    with changeable(old) as url:
        httpx.put(f"{url}/rollout", json=change).raise_for_status()
        deadline_s = time.monotonic() + 60
        while standing(url) != (new.digest, "watching"):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        start(StartShadowOptions(package=str(old.folder), url=url))
        with_shadow = standing(url)
        stop(ShadowOptions(url=url))

        assert with_shadow == standing(url) == (new.digest, "watching")


def standing(url: str) -> tuple[str, str]:
    """The digest that the only replica answers with, and how it stands."""
    (replica,) = httpx.get(f"{url}/rollout").json()["replicas"]
    return replica["models"][0]["digest"], replica["state"]
