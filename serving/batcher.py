"""The asyncio shell around the planner: what waits, which lanes are free, who gets which answer.

Work-conserving: whenever a lane is free and something waits, the next batch starts at once; there
is no timer. There is no task that could die either: the next decision is made by whoever submits a
text or frees a lane. All methods run on one event loop; only the lanes are threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from serving.errors import DeadlineExceeded, EngineFailed, NotReady, Overloaded
from serving.lanes import Lanes
from serving.planner import Cost, is_hopeless, plan
from serving.session import Encoding, Logits

_log = logging.getLogger(__name__)
# A batch that runs this long, and this many times its cost, will not come back: a healthy machine
# under the worst load is slower by less.
_STALLED_MS = 30_000.0
_STALLED_FACTOR = 20.0


class Pool(Protocol):
    """Runs batches on lanes, off the event loop."""

    lanes: Lanes

    def submit(self, encodings: Sequence[Encoding]) -> Future[Logits]:
        """Logits (B, labels) of one batch, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Logits (labels,) of one text, how long it waited and how long its batch ran."""

    logits: Logits
    queue_ms: float
    infer_ms: float


@dataclass(slots=True, kw_only=True)
class _Waiting:
    encoding: Encoding
    future: asyncio.Future[Answer]
    arrived_s: float
    due_s: float
    work_ms: float


@dataclass(slots=True, kw_only=True)
class _Running:
    batch: list[_Waiting]
    started_s: float
    expected_ms: float


class Batcher:
    """Answers encodings, in batches that the planner chooses, on free lanes.

    max_batch is 1 for a package that is not batch-invariant. max_queue_ms: milliseconds of work that
    may wait; beyond it `Overloaded`.
    """

    def __init__(self, pool: Pool, cost: Cost, *, max_batch: int, max_queue_ms: float) -> None:
        self._pool = pool
        self._cost = cost
        self._max_batch = max_batch
        self._max_queue_ms = max_queue_ms
        self._waiting: list[_Waiting] = []
        self._waiting_ms = 0.0
        self._halves: deque[list[_Waiting]] = deque()  # of batches that failed; they go first
        self._running: list[_Running] = []
        self._closed = False

    @property
    def queued_ms(self) -> float:
        """Milliseconds of work that wait, spread over the lanes."""
        return self._waiting_ms / self._pool.lanes.count

    def healthy(self) -> bool:
        """Whether work flows: nothing waits beside a free lane, and no batch is stalled."""
        now_s = time.perf_counter()
        stalled = any(
            (now_s - run.started_s) * 1e3 > max(_STALLED_MS, _STALLED_FACTOR * run.expected_ms)
            for run in self._running
        )
        return not stalled and not (self._free_lanes and (self._waiting or self._halves))

    async def answer(
        self, encodings: Sequence[Encoding], *, within_ms: float = math.inf
    ) -> list[Answer]:
        """One answer an encoding, in order; all of them or an exception.

        within_ms: from now; a text that cannot be answered by then is not computed. A cancelled
        caller's texts are dropped before compute. Raises `Overloaded`, `DeadlineExceeded`,
        `NotReady` when draining, `EngineFailed`.
        """
        self._admit(encodings)
        items = [self._enqueue(encoding, within_ms) for encoding in encodings]
        try:
            self._start_batches()
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            for item in items:
                item.future.cancel()
            if any(item.future.cancelled() for item in items):
                self._keep([item for item in self._waiting if not item.future.done()])

    async def close(self) -> None:
        """Refuse new texts, answer those that were accepted."""
        self._closed = True
        while accepted := [item.future for item in self._accepted() if not item.future.done()]:
            await asyncio.wait(accepted)

    @property
    def _free_lanes(self) -> int:
        return self._pool.lanes.count - len(self._running)

    def _accepted(self) -> list[_Waiting]:
        held = [*self._halves, *(run.batch for run in self._running)]
        return [*self._waiting, *(item for batch in held for item in batch)]

    def _admit(self, encodings: Sequence[Encoding]) -> None:
        if self._closed:
            raise NotReady("this replica is shutting down; ask again.")
        new_ms = sum(self._cost.ms(1, len(e)) for e in encodings) / self._pool.lanes.count
        # A lone request is never refused: whatever it costs, waiting would not make it cheaper.
        if self._waiting and self.queued_ms + new_ms > self._max_queue_ms:
            over_ms = self.queued_ms + new_ms - self._max_queue_ms
            raise Overloaded(
                f"{self.queued_ms:.0f} ms of work wait already, the limit is"
                f" {self._max_queue_ms:.0f} ms.",
                # A request larger than the whole queue gets in when nothing waits.
                retry_after_s=min(over_ms, self.queued_ms) / 1e3,
                hint="Retry after the time in the Retry-After header.",
            )

    def _enqueue(self, encoding: Encoding, within_ms: float) -> _Waiting:
        now_s = time.perf_counter()
        item = _Waiting(
            encoding=encoding,
            future=asyncio.get_running_loop().create_future(),
            arrived_s=now_s,
            due_s=now_s + within_ms / 1e3,
            work_ms=self._cost.ms(1, len(encoding)),
        )
        self._waiting.append(item)
        self._waiting_ms += item.work_ms
        return item

    def _start_batches(self) -> None:
        while self._free_lanes and (batch := self._next_batch()):
            self._run(batch)

    def _next_batch(self) -> list[_Waiting]:
        """A half of a failed batch, or the planner's choice out of the queue; empty when idle."""
        while self._halves:
            if half := [item for item in self._halves.popleft() if not item.future.done()]:
                return half
        now_s = time.perf_counter()
        self._drop_hopeless(now_s)
        chosen = set(
            plan(
                [len(item.encoding) for item in self._waiting],
                self._cost,
                max_batch=self._max_batch,
                lanes=self._free_lanes,
                due_ms=[(item.due_s - now_s) * 1e3 for item in self._waiting],
            )
        )
        batch = [item for index, item in enumerate(self._waiting) if index in chosen]
        self._keep([item for index, item in enumerate(self._waiting) if index not in chosen])
        return batch

    def _drop_hopeless(self, now_s: float) -> None:
        kept = []
        for item in self._waiting:
            if is_hopeless(len(item.encoding), (item.due_s - now_s) * 1e3, self._cost):
                waited_ms = (now_s - item.arrived_s) * 1e3
                item.future.set_exception(
                    DeadlineExceeded(f"Not answered in time: it waited {waited_ms:.0f} ms.")
                )
            else:
                kept.append(item)
        if len(kept) < len(self._waiting):
            self._keep(kept)

    def _keep(self, items: list[_Waiting]) -> None:
        self._waiting = items
        self._waiting_ms = sum(item.work_ms for item in items)

    def _run(self, batch: list[_Waiting]) -> None:
        longest = max(len(item.encoding) for item in batch)
        future = self._pool.submit([item.encoding for item in batch])
        run = _Running(
            batch=batch,
            started_s=time.perf_counter(),
            expected_ms=self._cost.ms(len(batch), longest),
        )
        self._running.append(run)
        asyncio.wrap_future(future).add_done_callback(partial(self._finish, run))

    def _finish(self, run: _Running, done: asyncio.Future[Logits]) -> None:
        """Hand out a finished batch, and use the lane again; runs on the event loop."""
        self._running.remove(run)
        error = NotReady("the lanes were closed.") if done.cancelled() else done.exception()
        if error is None:
            self._deliver(run, done.result())
        elif len(run.batch) > 1:
            # Again in two halves, so that one bad text spoils no other's answer.
            middle = len(run.batch) // 2
            self._halves.extend((run.batch[:middle], run.batch[middle:]))
        else:
            if not isinstance(error, EngineFailed | NotReady):
                _log.error("A lane failed: %r", error)
                error = EngineFailed(f"the model could not answer this text ({error}).")
            if not run.batch[0].future.done():
                run.batch[0].future.set_exception(error)
        self._start_batches()

    def _deliver(self, run: _Running, logits: Logits) -> None:
        assert len(logits) == len(run.batch), "engine lost rows; this is a bug"
        infer_ms = (time.perf_counter() - run.started_s) * 1e3
        for item, row in zip(run.batch, logits, strict=True):
            if not item.future.done():
                queue_ms = (run.started_s - item.arrived_s) * 1e3
                item.future.set_result(Answer(logits=row, queue_ms=queue_ms, infer_ms=infer_ms))
