"""The callers' side of batching: who may come in, until when, and who gets which answer.

All methods run on one event loop; batches run on the lanes' threads (`serving.dispatch`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serving.dispatch import Dispatcher, LearningCost, Outcome, Pool
from serving.errors import DeadlineExceeded, EngineFailed, NotReady, Overloaded, ServingError
from serving.line import HANDICAP_S, Priority
from serving.offered import Offered
from serving.session import Encoding
from serving.work import TRACED, Answer, Call, Ran, RunningBatch, Tally, Text

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_log = logging.getLogger(__name__)
Trace = Callable[[RunningBatch, Outcome, float], "SpanContext | None"]


class Batcher:
    """Answers encodings, in batches that the planner chooses, on free lanes.

    max_batch is 1 for a package that is not batch-invariant. max_tokens: of a batch of several, with
    padding. max_queue_ms: milliseconds of work that may wait; beyond it `Overloaded`. trace: told of
    every batch and of when it ended, on the event loop; gives its span, if it has one.
    """

    def __init__(  # noqa: PLR0913 - what it runs on, its limits and whom it tells
        self,
        pool: Pool,
        cost: LearningCost,
        *,
        max_batch: int,
        max_tokens: float = math.inf,
        max_queue_ms: float,
        trace: Trace | None = None,
    ) -> None:
        self._cost = cost
        self._trace = trace
        self._lanes = pool.lanes
        self._max_queue_ms = max_queue_ms
        self._closed = False
        self.offered = Offered()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dispatcher = Dispatcher(
            pool,
            cost,
            max_batch=max_batch,
            max_tokens=max_tokens,
            done=self._done,
            late=self._late,
        )

    @property
    def queued_ms(self) -> float:
        """Milliseconds of work that wait, spread over the lanes."""
        return self._dispatcher.queued_ms

    @property
    def tally(self) -> Tally:
        """What was run so far."""
        return self._dispatcher.tally

    def healthy(self) -> bool:
        """Whether work flows; see `Dispatcher.healthy`."""
        return self._dispatcher.healthy()

    def refuse_without_room(self, tokens: Sequence[int]) -> None:
        """Raise `Overloaded` when texts of about so many tokens would be: before tokenizing them."""
        if self._dispatcher.waiting:  # as a rule nothing does: then nothing need be foreseen
            works_ms = [self._cost.ms(1, count) for count in tokens]
            try:
                self._refuse_beyond(works_ms)
            except Overloaded:
                self.offered.add(works_ms)
                raise

    async def answer(
        self,
        encodings: Sequence[Encoding],
        *,
        within_ms: float = math.inf,
        priority: Priority = "interactive",
    ) -> list[Answer]:
        """One answer an encoding, in order; all of them or an exception.

        within_ms: from now; a text that cannot be answered by then is not computed. A cancelled
        caller's texts are dropped before compute. Raises `Overloaded`, `DeadlineExceeded`,
        `NotReady` when draining, `EngineFailed`.
        """
        if self._closed:
            raise NotReady("this replica is shutting down; ask again.")
        loop = self._loop = asyncio.get_running_loop()
        future = loop.create_future()
        call = Call(future=future, answers={}, count=len(encodings), traced=TRACED.get())
        texts = self._texts(call, encodings, within_ms, priority)
        works_ms = [text.work_ms for text in texts]
        self.offered.add(works_ms)
        self._refuse_beyond(works_ms)
        self._dispatcher.add(texts)
        timer = None
        if within_ms < math.inf:
            timer = loop.call_later(within_ms / 1e3, self._expire, texts)
        try:
            return await call.future
        finally:
            if timer:
                timer.cancel()
            if len(call.answers) < call.count:  # cancelled or failed: nobody wants the rest
                call.future.cancel()
                self._dispatcher.drop(texts)

    async def close(self) -> None:
        """Refuse new texts, answer those that were accepted."""
        self._closed = True
        while futures := {t.call.future for t in self._dispatcher.accepted() if t.wanted}:
            await asyncio.wait(futures)

    def _texts(
        self, call: Call, encodings: Sequence[Encoding], within_ms: float, priority: Priority
    ) -> list[Text]:
        now_s = time.perf_counter()
        return [
            Text(
                encoding=encoding,
                call=call,
                place=place,
                tokens=len(encoding),
                work_ms=self._cost.ms(1, len(encoding)),
                arrived_s=now_s,
                rank_s=now_s + HANDICAP_S[priority],
                due_s=now_s + within_ms / 1e3,
                priority=priority,
            )
            for place, encoding in enumerate(encodings)
        ]

    def _refuse_beyond(self, works_ms: Sequence[float]) -> None:
        new_ms = sum(works_ms) / self._lanes.count
        # A lone request is never refused: whatever it costs, waiting would not make it cheaper.
        if self._dispatcher.waiting and self.queued_ms + new_ms > self._max_queue_ms:
            self._refuse(new_ms)

    def _refuse(self, new_ms: float) -> None:
        over_ms = self.queued_ms + new_ms - self._max_queue_ms
        raise Overloaded(
            f"{self.queued_ms:.0f} ms of work wait already, the limit is"
            f" {self._max_queue_ms:.0f} ms.",
            # A request larger than the whole queue gets in when nothing waits.
            retry_after_s=min(over_ms, self.queued_ms) / 1e3,
            hint="Retry after the time in the Retry-After header.",
        )

    def _expire(self, texts: Sequence[Text]) -> None:
        """Its time is over: give up a call of which a text still waits."""
        if self._dispatcher.drop(texts):
            self._give_up(texts)

    def _give_up(self, texts: Sequence[Text]) -> None:
        now_s = time.perf_counter()
        for text in texts:
            waited_ms = (now_s - text.arrived_s) * 1e3
            _fail(text, DeadlineExceeded(f"Not answered in time: it waited {waited_ms:.0f} ms."))

    # The two below are called on the lanes' threads: they only pass on.

    def _done(self, run: RunningBatch, outcome: Outcome) -> None:
        ended_s = time.perf_counter()
        assert self._loop, "a batch without a caller; this is a bug"
        if self._trace or not run.halved:
            self._loop.call_soon_threadsafe(self._told, run, outcome, ended_s)

    def _late(self, texts: Sequence[Text]) -> None:
        assert self._loop, "a text without a caller; this is a bug"
        self._loop.call_soon_threadsafe(self._give_up, texts)

    def _told(self, run: RunningBatch, outcome: Outcome, ended_s: float) -> None:
        span = None
        try:
            span = self._trace(run, outcome, ended_s) if self._trace else None
        except Exception:  # noqa: BLE001 - whoever waits for it must not wait for ever
            _log.exception("A batch was not traced; this is a bug")
        if not run.halved:
            _hand_out(run, outcome, Ran(started_s=run.started_s, ended_s=ended_s, span=span))


def _hand_out(run: RunningBatch, outcome: Outcome, ran: Ran) -> None:
    if isinstance(outcome, Exception):
        error = outcome
        if not isinstance(error, ServingError):
            _log.error("The model failed: %r", error)
            error = EngineFailed(f"the model could not answer this text ({error}).")
        for text in run.batch:
            _fail(text, error)
        return
    assert len(outcome) == len(run.batch), "engine lost rows; this is a bug"
    infer_ms, whole = (ran.ended_s - ran.started_s) * 1e3, (ran,)
    for text, row in zip(run.batch, outcome, strict=True):
        call, queue_ms = text.call, (run.started_s - text.arrived_s) * 1e3
        answer = Answer(logits=row, queue_ms=queue_ms, infer_ms=infer_ms, ran=whole)
        call.answers[text.place] = answer
        if len(call.answers) == call.count and text.wanted:
            call.future.set_result([call.answers[place] for place in range(call.count)])


def _fail(text: Text, error: Exception) -> None:
    if text.wanted:
        text.call.future.set_exception(error)
