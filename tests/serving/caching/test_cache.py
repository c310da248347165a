"""Laws of known answers: the same bits as computed, nothing stale, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.caching.cache import Cache
from serving.encoding import Encoding
from serving.errors import DeadlineExceeded, Overloaded
from serving.line import Priority
from serving.work import Answer

DIGEST = "ab" * 32
LABELS = 3


def text(*ids: int, second: bool = False) -> Encoding:
    """A text of these tokens."""
    return Encoding(ids=ids, type_ids=(int(second),) * len(ids))


def logits_of(encoding: Encoding) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the pretended model says: something of its own for each text."""
    seed = abs(hash((encoding.ids, encoding.type_ids)))
    return np.random.default_rng(seed).normal(size=LABELS).astype(np.float32)


class Computing:
    """Stands for the batcher: notes what it computes; waits for *gate*; fails when told."""

    def __init__(self) -> None:
        self.asked: list[Encoding] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def answer(
        self,
        encodings: Sequence[Encoding],
        *,
        within_ms: float,  # noqa: ARG002
        priority: Priority,  # noqa: ARG002
    ) -> list[Answer]:
        """An answer each."""
        self.asked += encodings
        self.begun.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return [
            Answer(logits=logits_of(encoding), queue_ms=1.0, infer_ms=2.0) for encoding in encodings
        ]


def cache_of(computing: Computing, **limits: Any) -> Cache:
    """With room and time enough, unless told."""
    settings = {"max_bytes": 2**20, "ttl_s": 600.0} | limits
    return Cache(computing, package_digest=DIGEST, labels=LABELS, **settings)


def run(scenario: Callable[[Computing], Coroutine[Any, Any, None]]) -> None:
    """In a loop of its own, and never for ever."""

    async def within() -> None:
        await asyncio.wait_for(scenario(Computing()), 10)

    asyncio.run(within())


def same(answers: Sequence[Answer], encodings: Sequence[Encoding]) -> bool:
    """Whether each text has its own answer, bit for bit, in order."""
    return [a.logits.tobytes() for a in answers] == [logits_of(e).tobytes() for e in encodings]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
        min_size=1,
        max_size=8,
    )
)
def test_every_text_gets_its_own_answer(calls: list[list[tuple[int, bool]]]) -> None:
    """Whatever was asked before: in order, bit-equal to computed, and each distinct text once."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing)
        for call in calls:
            encodings = [text(number, second=second) for number, second in call]
            assert same(await cache.answer(encodings), encodings)
        asked = [(encoding.ids, encoding.type_ids) for encoding in computing.asked]
        assert len(asked) == len(set(asked))

    run(scenario)


def test_a_known_answer_says_so() -> None:
    """The first is computed, the second known; fresh computes again; clear forgets."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing)
        seen = [
            (await cache.answer([text(1)]))[0].cached,
            (await cache.answer([text(1)]))[0].cached,
            (await cache.answer([text(1)], fresh=True))[0].cached,
            (await cache.answer([text(1)]))[0].cached,
        ]
        assert await cache.clear() == 1
        seen.append((await cache.answer([text(1)]))[0].cached)

        assert seen == [False, True, False, True, False]
        assert len(computing.asked) == 3

    run(scenario)


def test_equal_texts_in_flight_are_computed_once() -> None:
    """Twenty callers at once, one computation, one answer for all."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing)
        computing.gate.clear()
        callers = [asyncio.create_task(cache.answer([text(1), text(2)])) for _ in range(20)]
        await asyncio.sleep(0)  # all of them have asked
        await computing.begun.wait()
        computing.gate.set()
        for answers in await asyncio.gather(*callers):
            assert same(answers, [text(1), text(2)])

        assert len(computing.asked) == 2
        assert cache.numbers()["cache_joined"] == 38

    run(scenario)


@pytest.mark.parametrize("how", ["leaves", "fails"])
def test_who_waits_for_anothers_computation_is_not_lost_with_it(how: str) -> None:
    """When the caller who computes leaves or is refused, who waited computes, and gets the answer."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing)
        computing.gate.clear()
        leader = asyncio.create_task(cache.answer([text(1)]))
        await computing.begun.wait()
        follower = asyncio.create_task(cache.answer([text(1)]))
        await asyncio.sleep(0)
        if how == "leaves":
            leader.cancel()
        else:
            computing.failure = Overloaded("full", retry_after_s=1.0)
            computing.gate.set()
        with pytest.raises((asyncio.CancelledError, Overloaded)):
            await leader
        computing.failure = None
        computing.gate.set()

        assert same(await follower, [text(1)])
        assert len(computing.asked) == 2

    run(scenario)


def test_a_deadline_holds_while_another_computes() -> None:
    """Who waits for another's computation waits no longer than it said."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing)
        computing.gate.clear()
        leader = asyncio.create_task(cache.answer([text(1)]))
        await computing.begun.wait()
        with pytest.raises(DeadlineExceeded):
            await cache.answer([text(1)], within_ms=5.0)
        computing.gate.set()

        assert same(await leader, [text(1)])

    run(scenario)


def test_answers_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its time an answer is known, from then on it is computed again."""
    now_s = 100.0
    monkeypatch.setattr("serving.caching.cache.time.monotonic", lambda: now_s)

    async def scenario(computing: Computing) -> None:
        nonlocal now_s
        cache = cache_of(computing, ttl_s=60.0)
        await cache.answer([text(1)])
        now_s += 59.9
        assert (await cache.answer([text(1)]))[0].cached
        now_s += 0.2
        assert not (await cache.answer([text(1)]))[0].cached

    run(scenario)


def test_memory_is_bounded_and_the_last_used_stay() -> None:
    """Never more bytes than told; what was used last is still known."""

    async def scenario(computing: Computing) -> None:
        cache = cache_of(computing, max_bytes=20_000)
        for number in range(500):
            await cache.answer([text(0), text(number)])
            assert cache.numbers()["cache_bytes"] <= 20_000
        assert (await cache.answer([text(0)]))[0].cached
        assert (await cache.answer([text(499)]))[0].cached
        assert not (await cache.answer([text(1)]))[0].cached

    run(scenario)


def test_another_package_knows_nothing() -> None:
    """Two packages never share an answer, even where they share Redis: keys hold the digest."""
    one, other = (
        Cache(Computing(), package_digest=digest, labels=LABELS, max_bytes=1000, ttl_s=1.0)
        for digest in (DIGEST, "cd" * 32)
    )

    assert one._key(text(1)) == one._key(text(1))
    assert one._key(text(1)) != other._key(text(1))
    assert len({one._key(text(1, 2)), one._key(text(12)), one._key(text(1, second=True))}) == 3
