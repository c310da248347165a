"""Laws of the batcher: conservation, order, no idle lane, no wasted or spoiled work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serving.batcher import Batcher
from serving.dispatch import Outcome
from serving.errors import DeadlineExceeded, EngineFailed, NotReady, Overloaded
from serving.lanes import Lanes
from serving.session import Encoding, Logits
from serving.work import RunningBatch

POISON, CRASH = 666, 777
Scenario = Callable[[], Coroutine[Any, Any, None]]


class Affine:
    """A call costs 1 ms and 0.1 ms a padded token."""

    def ms(self, batch: int, length: int) -> float:
        """Fixed plus padded tokens."""
        return 1 + 0.1 * batch * length

    def observe(self, batch: int, length: int, ms: float) -> None:
        """Stays what it is."""


class GatedPool:
    """Real lanes whose batches end when the test opens the gate; the answer is the first token id."""

    def __init__(self, count: int = 1) -> None:
        self.lanes = Lanes(count=count, threads=1)
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.most_at_once = 0
        self.crashes = self.repairs = 0
        self._at_once = 0
        self._begun = threading.Condition()
        self._workers = ThreadPoolExecutor(count)

    def start(self, work: Callable[[], None]) -> None:
        """On a lane's thread."""
        self._workers.submit(work)

    def run(self, encodings: Sequence[Encoding]) -> Logits:
        """Run one batch when the gate is open."""
        ids = [encoding.ids[0] for encoding in encodings]
        with self._begun:
            self.batches.append(ids)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._begun.notify_all()
        assert self.gate.wait(30)
        with self._begun:
            self._at_once -= 1
        if POISON in ids:
            raise EngineFailed("poison")
        if CRASH in ids and self.crashes:
            self.crashes -= 1
            raise RuntimeError("crash")
        return np.array([[number] for number in ids], dtype=np.float32)

    def repair(self) -> None:
        """Count."""
        self.repairs += 1

    def await_rest(self) -> None:
        """Until all that was started has ended."""
        self._workers.shutdown()

    def await_batches(self, count: int) -> None:
        """Until so many batches have begun."""
        with self._begun:
            assert self._begun.wait_for(lambda: len(self.batches) >= count, 30)


def text(number: int, length: int = 4) -> Encoding:
    """An encoding that is answered by *number*."""
    return Encoding(ids=(number,) * length, type_ids=(0,) * length)


def make(pool: GatedPool, *, max_batch: int = 8, max_queue_ms: float = 1e9) -> Batcher:
    """A batcher on *pool*."""
    return Batcher(pool, Affine(), max_batch=max_batch, max_queue_ms=max_queue_ms)


async def numbers(batcher: Batcher, *asked: int) -> list[int]:
    """Ask for several texts in one call."""
    return [int(a.logits[0]) for a in await batcher.answer([text(number) for number in asked])]


async def started(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have all run up to their first wait."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


def test_everybody_gets_their_own_answers_in_order() -> None:
    """Under mixed calls every text is answered once, to its caller, in the caller's order."""

    async def scenario() -> None:
        pool = GatedPool(count=2)
        batcher = make(pool)
        calls = [tuple(range(100 * n, 100 * n + n % 5 + 1)) for n in range(60)]
        tasks = await started(*(numbers(batcher, *call) for call in calls))
        pool.gate.set()

        assert await asyncio.gather(*tasks) == [list(call) for call in calls]
        assert sorted(i for b in pool.batches for i in b) == sorted(i for c in calls for i in c)
        assert pool.most_at_once == 2
        assert batcher.queued_ms == pytest.approx(0)
        assert batcher.healthy()

    asyncio.run(scenario())


def test_a_free_lane_starts_at_once_and_a_busy_one_gathers() -> None:
    """The first text does not wait for company; what comes meanwhile runs together."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool)
        tasks = await started(*(numbers(batcher, n) for n in range(5)))
        pool.await_batches(1)

        assert pool.batches == [[0]]
        pool.gate.set()
        await asyncio.gather(*tasks)
        assert pool.batches == [[0], [1, 2, 3, 4]]

    asyncio.run(scenario())


def test_two_free_lanes_share_one_call() -> None:
    """A call of many texts fills every free lane instead of one."""

    async def scenario() -> None:
        pool = GatedPool(count=2)
        pool.gate.set()

        assert await numbers(make(pool), *range(8)) == list(range(8))
        assert [len(batch) for batch in pool.batches] == [4, 4]

    asyncio.run(scenario())


def test_what_is_not_batch_invariant_runs_alone() -> None:
    """With max_batch 1 no text ever has company."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.gate.set()
        await numbers(make(pool, max_batch=1), *range(6))

        assert pool.batches == [[n] for n in range(6)]

    asyncio.run(scenario())


def test_a_poisoned_text_spoils_only_its_own_answer() -> None:
    """A text that fails the model fails alone; its neighbours are answered, within the lanes."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool)
        asked = [0, 1, 2, POISON, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        tasks = await started(*(numbers(batcher, n) for n in asked))
        pool.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(answers.pop(3), EngineFailed)
        assert answers == [[n] for n in asked if n != POISON]
        assert pool.most_at_once == 1
        assert batcher.healthy()

    asyncio.run(scenario())


def test_a_crashed_lane_is_replaced_and_its_batch_run_again() -> None:
    """A crash that does not come back costs nobody an answer."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.crashes = 1
        batcher = make(pool)
        tasks = await started(*(numbers(batcher, n) for n in (0, 1, CRASH, 2)))
        pool.gate.set()

        assert await asyncio.gather(*tasks) == [[0], [1], [CRASH], [2]]
        assert pool.repairs == 1
        assert batcher.healthy()

    asyncio.run(scenario())


def test_a_text_that_crashes_lanes_fails_alone() -> None:
    """When the crash comes back, only the text that brings it is given up."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.crashes = 1_000
        batcher = make(pool)
        tasks = await started(*(numbers(batcher, n) for n in (0, 1, CRASH, 2)))
        pool.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(answers.pop(2), EngineFailed)
        assert answers == [[0], [1], [2]]
        assert batcher.healthy()

    asyncio.run(scenario())


def test_a_lost_lane_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours on a lane's thread fails its batch, and the batcher says that it is ill."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.gate.set()
        batcher = make(pool)

        monkeypatch.setattr("serving.dispatch.one_more", buggy)
        with pytest.raises(EngineFailed):
            await numbers(batcher, 1)
        pool.await_rest()

        assert not batcher.healthy()

    asyncio.run(scenario())


def test_a_lane_lost_after_its_batch_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in what a lane does once its callers are told: they have their answers, and it shows."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.gate.set()
        batcher = make(pool)

        monkeypatch.setattr(Affine, "observe", buggy)
        assert await numbers(batcher, 1) == [1]
        pool.await_rest()

        assert not batcher.healthy()

    asyncio.run(scenario())


def buggy(*_: object) -> None:
    """Stands where a bug might."""
    raise ZeroDivisionError


def test_bulk_work_lets_others_pass() -> None:
    """Of what waits, bulk work is run last; of one priority, who came first is first."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool, max_batch=1)
        (first,) = await started(numbers(batcher, 0))
        bulk, plain, interactive = await started(
            batcher.answer([text(1)], priority="bulk"),
            batcher.answer([text(2), text(3)]),
            batcher.answer([text(4)], priority="interactive"),
        )
        pool.gate.set()
        await asyncio.gather(first, bulk, plain, interactive)

        assert pool.batches == [[0], [2], [3], [4], [1]]

    asyncio.run(scenario())


def test_a_cancelled_request_costs_no_inference() -> None:
    """Texts whose caller left before their batch began are never run, nor do they count as queued."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool)
        first, gone, last = await started(*(numbers(batcher, n) for n in (1, 2, 3)))
        before_ms = batcher.queued_ms
        gone.cancel()
        await asyncio.wait([gone])

        assert batcher.queued_ms == pytest.approx(before_ms / 2)
        pool.gate.set()
        assert [await first, await last] == [[1], [3]]
        assert pool.batches == [[1], [3]]

    asyncio.run(scenario())


def test_beyond_the_bound_is_refused_at_once() -> None:
    """Work beyond max_queue_ms is refused with a time to retry; what was accepted is answered."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool, max_queue_ms=3.0)  # a text is 1.4 ms
        accepted = await started(*(numbers(batcher, n) for n in range(3)))
        with pytest.raises(Overloaded) as refused:
            await numbers(batcher, 3)

        assert refused.value.retry_after_s == pytest.approx(0.0012)
        pool.gate.set()
        assert await asyncio.gather(*accepted) == [[0], [1], [2]]
        assert await numbers(batcher, 3) == [3]

    asyncio.run(scenario())


def has_no_room(batcher: Batcher, tokens: Sequence[int]) -> bool:
    """Whether texts of so many tokens are refused before tokenizing."""
    try:
        batcher.refuse_without_room(tokens)
    except Overloaded:
        return True
    return False


async def is_refused(answer: Coroutine[Any, Any, Any]) -> bool:
    """Whether a call is refused; if not, it is given up."""
    (task,) = await started(answer)
    refused = task.done() and isinstance(task.exception(), Overloaded)
    task.cancel()
    await asyncio.wait([task])
    return refused


def test_what_has_no_room_is_known_before_tokenizing() -> None:
    """Refused by the number of tokens is just what would be refused by the tokens themselves."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool, max_queue_ms=5.0)  # a text of 4 tokens is 1.4 ms
        accepted = await started(*(numbers(batcher, n) for n in range(3)))  # 2.8 wait
        told = {True: 0, False: 0}
        for lengths in ([4], [12], [13], [4, 4], [1] * 3, [200]):
            refused = has_no_room(batcher, lengths)
            assert refused == await is_refused(
                batcher.answer([text(9, length) for length in lengths])
            )
            told[refused] += 1
        assert all(told.values())
        pool.gate.set()
        assert await asyncio.gather(*accepted) == [[0], [1], [2]]

    asyncio.run(scenario())


def test_a_lone_call_is_never_refused() -> None:
    """However large, a call is taken when nothing waits: later it would cost the same."""

    async def scenario() -> None:
        pool = GatedPool()
        pool.gate.set()

        assert await numbers(make(pool, max_queue_ms=0.1), *range(20)) == list(range(20))

    asyncio.run(scenario())


def test_what_would_be_late_is_not_run() -> None:
    """A text that cannot be answered in its time is refused, and costs no inference."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool)
        (first,) = await started(numbers(batcher, 1))
        (late,) = await started(batcher.answer([text(2)], within_ms=1.0))
        (patient,) = await started(batcher.answer([text(3)], within_ms=60_000.0))
        pool.gate.set()

        assert await first == [1]
        with pytest.raises(DeadlineExceeded):
            await late
        assert [int(a.logits[0]) for a in await patient] == [3]
        assert pool.batches == [[1], [3]]

    asyncio.run(scenario())


def test_closing_answers_what_was_accepted() -> None:
    """While closing, new texts are refused, and those that run or wait are answered."""

    async def scenario() -> None:
        pool = GatedPool()
        batcher = make(pool)
        running, waiting = await started(numbers(batcher, 1), numbers(batcher, 2))
        (closing,) = await started(batcher.close())
        with pytest.raises(NotReady):
            await numbers(batcher, 3)

        assert not closing.done()
        pool.gate.set()
        await closing
        assert [await running, await waiting] == [[1], [2]]

    asyncio.run(scenario())


def test_a_stalled_lane_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that runs far beyond its cost makes the batcher unhealthy, until it comes back."""

    async def scenario() -> None:
        now_s = [1000.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now_s[0])
        pool = GatedPool()
        batcher = make(pool)
        (task,) = await started(numbers(batcher, 1))

        now_s[0] += 29
        assert batcher.healthy()
        now_s[0] += 2
        assert not batcher.healthy()
        pool.gate.set()
        await task
        assert batcher.healthy()

    asyncio.run(scenario())


def test_every_batch_is_traced_those_that_run_again_too() -> None:
    """Each run of a lane is told once with its outcome; its answers carry the span that was given."""

    async def scenario() -> None:
        pool = GatedPool()
        told: list[tuple[list[int], bool]] = []
        spans: list[Any] = []

        def trace(run: RunningBatch, outcome: Outcome, ended_s: float) -> Any:
            assert run.started_s <= ended_s
            ids = [text.encoding.ids[0] for text in run.batch]
            told.append((ids, isinstance(outcome, Exception)))
            spans.append(object())
            return spans[-1]

        batcher = Batcher(pool, Affine(), max_batch=8, max_queue_ms=1e9, trace=trace)
        first = await started(batcher.answer([text(1)]))
        asked = [await started(batcher.answer([text(n)])) for n in (2, POISON, 3, 4)]
        pool.gate.set()
        (lone,) = await first[0]
        answers = await asyncio.gather(*(task for (task,) in asked), return_exceptions=True)

        assert [ids for ids, _ in told] == pool.batches
        assert [failed for ids, failed in told] == [POISON in ids for ids, _ in told]
        assert any(failed and len(ids) > 1 for ids, failed in told)
        assert lone.ran[0].span is spans[0]
        for number, answer in zip((2, POISON, 3, 4), answers, strict=True):
            if number == POISON:
                assert isinstance(answer, EngineFailed)
            else:
                assert isinstance(answer, list)
                last = max(place for place, (ids, _) in enumerate(told) if number in ids)
                assert answer[0].ran[0].span is spans[last]

    asyncio.run(scenario())


def test_a_trace_that_fails_costs_no_answer() -> None:
    """Whoever waits for the batch gets its answer, whatever becomes of the span."""

    async def scenario() -> None:
        def trace(*_: Any) -> Any:
            raise ZeroDivisionError

        pool = GatedPool()
        pool.gate.set()
        batcher = Batcher(pool, Affine(), max_batch=8, max_queue_ms=1e9, trace=trace)

        assert await asyncio.wait_for(numbers(batcher, 1, 2), 30) == [1, 2]

    asyncio.run(scenario())
