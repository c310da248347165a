"""The asyncio shell around the planner: what waits, which lanes are free, who gets which answer.

Work-conserving: whenever a lane is free and something waits, the next batch starts at once; there
is no timer. There is no task that could die either: the next decision is made by whoever submits a
text or frees a lane. All methods run on one event loop; only the lanes are threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from serving.engine import Encoding, Logits
from serving.errors import EngineFailed, NotReady, Overloaded
from serving.lanes import LanePool
from serving.planner import Cost, plan

_log = logging.getLogger(__name__)


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
    work_ms: float


class Batcher:
    """Answers encodings, in batches that the planner chooses, on free lanes.

    max_batch is 1 for a package that is not batch-invariant. max_queue_ms: milliseconds of work that
    may wait; beyond it `Overloaded`.
    """

    def __init__(self, pool: LanePool, cost: Cost, *, max_batch: int, max_queue_ms: float) -> None:
        self._pool = pool
        self._cost = cost
        self._max_batch = max_batch
        self._max_queue_ms = max_queue_ms
        self._waiting: list[_Waiting] = []
        self._waiting_ms = 0.0
        self._free_lanes = pool.lanes.count
        self._closed = False

    @property
    def queued_ms(self) -> float:
        """Milliseconds of work that wait, spread over the lanes."""
        return self._waiting_ms / self._pool.lanes.count

    async def answer(self, encodings: Sequence[Encoding]) -> list[Answer]:
        """One answer an encoding, in order; all of them or an exception.

        A cancelled caller's texts are dropped before compute. Raises `Overloaded`, `NotReady` when
        draining, `EngineFailed`.
        """
        self._admit(encodings)
        items = [self._enqueue(encoding) for encoding in encodings]
        self._start_batches()
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            for item in items:
                item.future.cancel()

    async def close(self) -> None:
        """Refuse new texts, answer those that wait."""
        self._closed = True
        while waiting := [item.future for item in self._waiting]:
            await asyncio.wait(waiting)

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
                retry_after_s=over_ms / 1e3,
                hint="Retry after the time in the Retry-After header.",
            )

    def _enqueue(self, encoding: Encoding) -> _Waiting:
        item = _Waiting(
            encoding=encoding,
            future=asyncio.get_running_loop().create_future(),
            arrived_s=time.perf_counter(),
            work_ms=self._cost.ms(1, len(encoding)),
        )
        self._waiting.append(item)
        self._waiting_ms += item.work_ms
        return item

    def _start_batches(self) -> None:
        while self._free_lanes and (batch := self._next_batch()):
            self._run(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Take the planner's choice out of the queue; whoever has left is dropped first."""
        if any(item.future.done() for item in self._waiting):
            self._keep([item for item in self._waiting if not item.future.done()])
        lengths = [len(item.encoding) for item in self._waiting]
        chosen = set(plan(lengths, self._cost, max_batch=self._max_batch))
        batch = [item for index, item in enumerate(self._waiting) if index in chosen]
        self._keep([item for index, item in enumerate(self._waiting) if index not in chosen])
        return batch

    def _keep(self, items: list[_Waiting]) -> None:
        self._waiting = items
        self._waiting_ms = sum(item.work_ms for item in items)

    def _run(self, batch: list[_Waiting]) -> None:
        self._free_lanes -= 1
        started_s = time.perf_counter()
        running = asyncio.wrap_future(self._pool.submit([item.encoding for item in batch]))
        running.add_done_callback(partial(self._finish, batch, started_s))

    def _finish(
        self, batch: list[_Waiting], started_s: float, done: asyncio.Future[Logits]
    ) -> None:
        """Hand out a finished batch, and use the lane again; runs on the event loop."""
        self._free_lanes += 1
        error = None if done.cancelled() else done.exception()
        if error is None and not done.cancelled():
            self._deliver(batch, started_s, done.result())
        elif len(batch) > 1:
            self._isolate(batch)
        else:
            reason = error or NotReady("this replica is shutting down; ask again.")
            if not isinstance(reason, EngineFailed | NotReady):
                _log.error("A lane failed: %r", reason)
                reason = EngineFailed(f"the model could not answer this text ({reason}).")
            if not batch[0].future.done():
                batch[0].future.set_exception(reason)
        self._start_batches()

    def _deliver(self, batch: list[_Waiting], started_s: float, logits: Logits) -> None:
        assert len(logits) == len(batch), "engine lost rows; this is a bug"
        infer_ms = (time.perf_counter() - started_s) * 1e3
        for item, row in zip(batch, logits, strict=True):
            if not item.future.done():
                queue_ms = (started_s - item.arrived_s) * 1e3
                item.future.set_result(Answer(logits=row, queue_ms=queue_ms, infer_ms=infer_ms))

    def _isolate(self, batch: list[_Waiting]) -> None:
        """Run a failed batch again in two halves, so that one bad text spoils no other's answer."""
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            self._run(half)  # may pass the number of lanes for a moment; the pool queues it
