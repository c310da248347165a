"""Laws of the shadow: it counts every text once, changes no answer, and nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.agreement import Counts, said_by
from serving.core import Answered, Core
from serving.engine import Engine
from serving.errors import EngineFailed
from serving.lanes import Lanes
from serving.package import Package
from serving.protocols.asking import Asking
from serving.protocols.desk import Desk
from serving.reading import Reading, Window
from serving.request import Request
from serving.rollout.sharing import is_shared
from serving.rollout.wanted import PinnedShare
from serving.settings import ServeSettings
from serving.shadow.observer import Shadow
from serving.shadow.report import ShadowState, reported
from serving.shadow.worker import opinion
from serving.work import Answer

MakePackage = Callable[..., Package]
Draw = Callable[[int, int], list[str]]
OWN_CODE = "shadow_form_of_a_test"
# A canonicaliser that breaks, ends its process, or never returns, as the text says.
FORM = """
import os, threading
def form(text):
    if "##s" in text and "bad" in text:
        raise ValueError("no")
    if "END" in text:
        os._exit(1)
    if "HANG" in text:
        threading.Event().wait()
    return text
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the candidate alone."""
    (tmp_path / f"{OWN_CODE}.py").write_text(FORM)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{OWN_CODE}:form"


class Both:
    """A champion, and a shadow that its desk tells."""

    def __init__(self, core: Core, shadow: Shadow | None) -> None:
        self.core = core
        self._shadow = shadow
        self._desk = Desk(core, None, [shadow] if shadow else [])
        self._asked = 0

    @property
    def shadow(self) -> Shadow:
        """There is one."""
        assert self._shadow
        return self._shadow

    async def ask(self, *texts: str, **said: Any) -> Answered:
        """As a door does."""
        request = Request(door="predict", id=f"request {self._asked}")
        self._asked += 1
        asked = Asking(texts=texts, **said)
        await self._desk.charge(request, asked)
        answered = await self._desk.ask(request, asked)
        self._desk.answered(request, answered)
        return answered

    def settle(self, until: Callable[[ShadowState], bool] | None = None) -> ShadowState:
        """Once nothing waits, or *until*."""
        until = until or (lambda state: not state.waiting)
        deadline_s = time.monotonic() + 60
        while not until(state := self.shadow.state()):
            assert time.monotonic() < deadline_s, state
            time.sleep(0.01)
        return state


@contextmanager
def beside(
    champion: Package, candidate: Package | None, *, share: float = 1.0, **more: Any
) -> Iterator[Both]:
    """A champion with a candidate beside it, or alone."""
    core = Core(champion, Lanes(count=1, threads=1), ServeSettings(package="p"))
    shadow = None
    if candidate:
        named = PinnedShare(package="tiny/2", digest=candidate.digest, share=share)
        shadow = Shadow(core, named, lambda: candidate.folder, **more)
    try:
        yield Both(core, shadow)
    finally:
        if shadow:
            shadow.close()


def adds_up(state: ShadowState) -> bool:
    """Every text that was offered is somewhere, and in one place."""
    gone = state.counts.texts + state.dropped + sum(state.left_out.values())
    return state.offered == gone + state.waiting


def expected(champion: Package, candidate: Package, texts: Sequence[str]) -> Counts:
    """What the engines themselves say."""
    counts = Counts()
    rows = [Engine(package).logits(texts) for package in (champion, candidate)]
    for ours, theirs in zip(*rows, strict=True):
        pair = [
            opinion(Answer(logits=row, queue_ms=0, infer_ms=0, cached=True), package)
            for row, package in ((ours, champion), (theirs, candidate))
        ]
        counts.add(*pair)
    return counts


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_it_finds_what_the_engines_say(make_package: MakePackage, draw: Draw, task: str) -> None:
    """Of every text that differs from the last ones, label for label; and each is counted once."""
    champion, candidate = make_package(task=task), make_package(task=task, seed=1)
    texts = draw(60, 1)
    distinct = list(dict.fromkeys(texts))
    with beside(champion, candidate) as both:

        async def run() -> None:
            for at in range(0, len(texts), 5):
                await both.ask(*texts[at : at + 5])

        asyncio.run(run())
        state = both.settle()

    found, right = said_by(state.counts), said_by(expected(champion, candidate, distinct))
    assert state.standing == "comparing"
    assert (state.offered, state.left_out["repeated"]) == (60, 60 - len(distinct))
    assert adds_up(state)
    assert (found.agreement, found.disagreements) == (right.agreement, right.disagreements)
    assert 0 < found.agreeing < found.texts, "the law says nothing of packages that are alike"
    for ours, theirs in zip(found.labels, right.labels, strict=True):
        assert (ours.label, ours.champion, ours.candidate, ours.both) == (
            *(theirs.label, theirs.champion, theirs.candidate, theirs.both),
        )
        assert (ours.shift, ours.moved) == pytest.approx((theirs.shift, theirs.moved), abs=1e-6)
    assert found.candidate_infer_ms.texts == len(distinct)


def test_a_package_is_one_with_itself(package: Package, draw: Draw) -> None:
    """Windows, pairs' absence, known answers: whatever way a text is read, both read it so."""
    long = " ".join(draw(30, 2))
    with beside(package, package) as both:

        async def run() -> None:
            await both.ask("good soup", reading=Reading(window=Window(stride=4)))
            await both.ask(long, reading=Reading(window=Window(aggregate="max")))
            await both.ask(long)
            await both.ask(long, "bad", reading=Reading(truncate=True))
            await both.ask("good soup", reading=Reading(truncate=False))

        asyncio.run(run())
        state = both.settle()

    said = said_by(state.counts)
    assert (said.texts, said.agreeing, state.left_out["repeated"]) == (5, 5, 1)
    assert {label.moved for label in said.labels} == {0.0}


def test_pairs_are_compared_as_pairs(make_package: MakePackage) -> None:
    """A pair is its two texts together."""
    package = make_package(text_pair=True)
    with beside(package, package) as both:
        asyncio.run(both.ask("good", "good", pairs=("bad", "soup")))
        state = both.settle()

    said = said_by(state.counts)
    assert (said.texts, said.agreeing) == (2, 2)
    assert {label.moved for label in said.labels} == {0.0}


def test_it_changes_no_answer(make_package: MakePackage, draw: Draw) -> None:
    """Bit for bit what a champion says that has nobody beside it."""
    champion, texts = make_package(), draw(40, 3)
    rows = []
    for candidate in (None, make_package(seed=1)):
        with beside(champion, candidate) as both:

            async def run(asked: Both = both) -> list[Answered]:
                return [await asked.ask(text) for text in texts]

            rows.append(np.stack([one.answers[0].logits for one in asyncio.run(run())]))

    np.testing.assert_array_equal(rows[0], rows[1])


def test_a_candidate_that_hangs_costs_no_answer(make_package: MakePackage, own_code: str) -> None:
    """Live answers come while it hangs; what comes meanwhile waits, and is dropped beyond its room."""
    champion, candidate = make_package(), make_package(canonicalizer=own_code)
    long = "good soup " * 20_000
    with beside(champion, candidate, allow_code=own_code) as both:

        async def run() -> list[Answered]:
            await both.ask("HANG")
            return [await both.ask(*(f"{long} {n} {m}" for m in range(10))) for n in range(4)]

        answered = asyncio.run(run())
        state = both.shadow.state()

    assert [len(each.answers) for each in answered] == [10] * 4
    assert adds_up(state)
    assert (state.waiting, state.dropped, state.counts.texts) == (21, 20, 0)


def test_one_that_hangs_is_begun_anew(make_package: MakePackage, own_code: str) -> None:
    """What it had is left out; what comes later is compared."""
    champion, candidate = make_package(), make_package(canonicalizer=own_code)
    with beside(champion, candidate, allow_code=own_code, patience_s=1.0) as both:
        asyncio.run(both.ask("HANG"))
        hung = both.settle()
        asyncio.run(both.ask("good", "bad"))
        state = both.settle()

    assert hung.left_out["failed"] == 1
    assert (state.standing, state.counts.texts) == ("comparing", 2)
    assert adds_up(state)


def test_one_that_ends_again_and_again_is_left_alone(
    make_package: MakePackage, own_code: str
) -> None:
    """It is begun three times; then every text is left out, none waits, and the report says why."""
    champion, candidate = make_package(), make_package(canonicalizer=own_code)
    with beside(champion, candidate, allow_code=own_code) as both:

        async def end(times: int) -> None:
            for number in range(times):
                await both.ask(f"END {number} {both.shadow.state().offered}")
                await asyncio.to_thread(both.settle)

        asyncio.run(end(3))
        state = both.settle(lambda state: state.standing == "failed")
        asyncio.run(both.ask("good"))
        after = both.settle()

    assert "ended" in state.trouble
    assert adds_up(after)
    assert (after.counts.texts, after.left_out["failed"]) == (0, 4)


def test_a_text_that_it_cannot_answer_spoils_no_other(
    make_package: MakePackage, own_code: str
) -> None:
    """One it breaks on, and one that is too long for it alone, are left out; those beside are compared."""
    champion = make_package()
    candidate = make_package(canonicalizer=own_code, max_length=8)
    with beside(champion, candidate, allow_code=own_code) as both:

        async def run() -> None:
            await both.ask("good", "bad ##s", "cold")
            whole = Reading(truncate=False)
            await both.ask("soup", "the staff was very warm and not bad", reading=whole)

        asyncio.run(run())
        state = both.settle()

    assert adds_up(state)
    assert state.counts.texts == 3
    assert state.left_out == {"repeated": 0, "refused": 1, "failed": 1}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"golden_shift": 1.0}, "golden"),
        ({"task": "multi_label"}, "multi_label, the champion single_label"),
        ({"text_pair": True}, "of pairs"),
    ],
    ids=["golden answers", "task", "pairs"],
)
def test_one_that_cannot_be_compared_is_told(
    make_package: MakePackage, kind: dict[str, Any], words: str
) -> None:
    """Why stands in the report; its texts are left out, and the champion answers."""
    with beside(make_package(), make_package(**kind)) as both:
        asyncio.run(both.ask("good"))
        state = both.settle()

    assert state.standing == "failed"
    assert words in state.trouble
    assert state.left_out["failed"] == 1


def test_who_has_no_share_is_not_asked(package: Package) -> None:
    """Of a request that is not drawn no text is offered, of one that is all are."""
    with beside(package, package, share=0.5) as both:
        keys = [b"shadow 0 request %d" % number for number in range(20)]
        drawn = [is_shared(key, package.digest, 0.5) for key in keys]

        async def run() -> None:
            for number in range(20):
                await both.ask(f"good {number}", f"bad {number}")

        asyncio.run(run())

        assert both.shadow.state().offered == 2 * sum(drawn)
        assert 0 < sum(drawn) < 20


def test_a_champion_with_work_waiting_goes_first(package: Package) -> None:
    """While something waits for the champion nothing is compared; then it is."""
    looks = 0

    def queued_ms() -> float:
        nonlocal looks
        looks += 1
        return float(looks <= 20)

    with beside(package, package) as both:
        both.shadow._queued_ms = queued_ms
        asyncio.run(both.ask("good"))
        early = both.settle(lambda _: 0 < looks < 20)
        state = both.settle()

    assert (early.waiting, early.counts.texts) == (1, 0)
    assert (looks, state.counts.texts) == (21, 1)


def test_replicas_with_other_packages_are_not_in_the_report() -> None:
    """A report is of one pair of packages: who serves another just now is only counted."""
    states = [
        ShadowState(
            champion=champion,
            candidate=PinnedShare(package="p/2", digest=candidate, share=0.1),
            standing="comparing",
            offered=10,
            waiting=10,
        )
        for champion, candidate in (("a", "b"), ("a", "b"), ("b", "b"), ("a", "c"))
    ]
    report = reported([None, *states[2:], *states[:2]])
    assert reported([None]) is None
    assert report

    assert (report.replicas, report.elsewhere) == ({"comparing": 2}, 3)
    assert (report.offered, report.waiting, report.compared) == (20, 20, 0)
    assert report.agreed.agreement is None


def test_the_planted_form_breaks(make_package: MakePackage, own_code: str) -> None:
    """Else the laws above would hold of anything."""
    with pytest.raises(EngineFailed):
        Engine(make_package(canonicalizer=own_code), allow_code=own_code).logits(["bad ##s"])
