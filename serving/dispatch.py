"""The threads' side of batching: whenever a lane is free and something waits, a batch runs.

A lane that has finished plans its next batch itself, on its own thread, so it never stands still
until the event loop has time for it. There is no task that could die: a lane that idles is started
by whoever adds a text. Knows nothing of callers but whether they still wait.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from serving.errors import EngineFailed, NotReady
from serving.lanes import Lanes
from serving.line import Line
from serving.planner import WINDOW, Cost, is_hopeless, passed_by, plan
from serving.session import Encoding, Logits
from serving.work import RunningBatch, Tally, Text, one_more

_log = logging.getLogger(__name__)
# A batch that runs this long, and this many times its cost, will not come back: a healthy machine
# under the worst load is slower by less.
_STALLED_MS = 30_000.0
_STALLED_FACTOR = 20.0
Outcome = Logits | Exception


class Pool(Protocol):
    """Threads to run batches on."""

    lanes: Lanes

    def start(self, work: Callable[[], None]) -> None:
        """Run *work* on a lane's thread; at no time more of them than lanes."""
        ...

    def run(self, encodings: Sequence[Encoding]) -> Logits:
        """Logits (B, labels) of one batch, in order; on a lane's thread."""
        ...

    def repair(self) -> None:
        """Replace what a lane runs on, after it crashed."""
        ...


class LearningCost(Cost, Protocol):
    """What `serving.cost.CostModel` does."""

    def observe(self, batch: int, length: int, ms: float) -> None:
        """Learn from a batch that took *ms*."""
        ...


class Dispatcher:
    """Runs texts in the planner's batches. Any thread may call it.

    done: told of every batch that ran, on the lane's thread; those that are `halved` run again. late:
    told of texts that are not run, since they would be late.
    """

    def __init__(  # noqa: PLR0913 - what it runs on, its limits and whom it tells
        self,
        pool: Pool,
        cost: LearningCost,
        *,
        max_batch: int,
        max_tokens: float,
        done: Callable[[RunningBatch, Outcome], None],
        late: Callable[[Sequence[Text]], None],
    ) -> None:
        self._pool, self._cost = pool, cost
        self._max_batch, self._max_tokens = max_batch, max_tokens
        self._done, self._late = done, late
        self._lock = threading.Lock()  # of all below; never held while a batch runs
        self._line: Line[Text] = Line()
        self._halves: deque[list[Text]] = deque()  # of batches that failed; they go first
        self._running: list[RunningBatch] = []
        self._lost_lanes = 0
        self.tally = Tally()

    @property
    def waiting(self) -> int:
        """How many texts stand in line."""
        return len(self._line)

    @property
    def queued_ms(self) -> float:
        """Milliseconds of work that wait, spread over the lanes."""
        return self._line.work_ms / self._pool.lanes.count

    def healthy(self) -> bool:
        """Whether work flows: no lane was lost, none idles beside work, and no batch is stalled."""
        now_s = time.perf_counter()
        with self._lock:
            stalled = any(
                (now_s - run.started_s) * 1e3 > max(_STALLED_MS, _STALLED_FACTOR * run.expected_ms)
                for run in self._running
            )
            idle = self._free_lanes > 0 and bool(self.waiting or self._halves)
            return not (stalled or idle or self._lost_lanes)

    def add(self, texts: Sequence[Text]) -> None:
        """Put *texts* in line; start the lanes that idle."""
        with self._lock:
            for text in texts:
                self._line.add(text)
            runs = []
            while self._free_lanes > 0 and (run := self._claim()):
                runs.append(run)
        for run in runs:
            self._pool.start(partial(self._work, run))

    def drop(self, texts: Sequence[Text]) -> bool:
        """Take *texts* out of the line; whether any still stood in it."""
        with self._lock:
            return self._line.remove(texts) > 0

    def accepted(self) -> list[Text]:
        """Texts that wait or run."""
        with self._lock:
            batches = [*self._halves, *(run.batch for run in self._running)]
            return [*self._line.first(self.waiting), *(text for batch in batches for text in batch)]

    @property
    def _free_lanes(self) -> int:
        return self._pool.lanes.count - len(self._running) - self._lost_lanes

    def _claim(self) -> RunningBatch | None:
        """The next batch, from now on running: a half of a failed one, or the planner's choice."""
        batch = self._next_half() or self._next_planned()
        if not batch:
            return None
        longest = max(text.tokens for text in batch)
        run = RunningBatch(
            batch=batch,
            longest=longest,
            started_s=time.perf_counter(),
            expected_ms=self._cost.ms(len(batch), longest),
        )
        self._running.append(run)
        return run

    def _next_half(self) -> list[Text]:
        while self._halves:
            if half := [text for text in self._halves.popleft() if text.wanted]:
                return half
        return []

    def _next_planned(self) -> list[Text]:
        now_s = time.perf_counter()
        window = self._line.first(WINDOW)
        if late := [t for t in window if t.due_s < math.inf and is_hopeless(t, self._cost, now_s)]:
            self._line.remove(late)
            self._late(late)
            window = self._line.first(WINDOW)
        chosen = plan(
            window,
            self._cost,
            max_batch=self._max_batch,
            max_tokens=self._max_tokens,
            lanes=self._free_lanes,
            now_s=now_s,
        )
        batch = [window[index] for index in chosen]
        for index, ms in passed_by(window, chosen, self._cost).items():
            window[index].passed_ms += ms
        self._line.remove(batch)
        return batch

    def _work(self, run: RunningBatch) -> None:
        """Batch after batch until nothing waits; on a lane's thread."""
        following: RunningBatch | None = run
        try:
            while following:
                began_s = time.thread_time()
                run, outcome = following, self._outcome(following)
                run.cpu_s = time.thread_time() - began_s
                infer_ms = (time.perf_counter() - run.started_s) * 1e3
                following = self._finish(run, outcome, infer_ms)
                self._done(run, outcome)
                self._learn(run, outcome, infer_ms)  # while its callers are told
        except BaseException:
            _log.exception("A lane was lost; this is a bug")
            lost = [run] if following in (run, None) else [run, following]
            with self._lock:
                self._lost_lanes += 1
                self._running = [other for other in self._running if other not in lost]
            for each in filter(None, lost):
                self._done(each, EngineFailed("the lane was lost."))
            raise

    def _outcome(self, run: RunningBatch) -> Outcome:
        """Logits (B, labels), or why there are none. A lane that crashed is replaced, once."""
        encodings = [text.encoding for text in run.batch]
        try:
            return self._pool.run(encodings)
        except (EngineFailed, NotReady) as error:
            return error
        except Exception:  # noqa: BLE001 - whatever it is, it is not the engine's word on a text
            _log.exception("A lane crashed; it is replaced and its batch run again")
        try:
            self._pool.repair()
            return self._pool.run(encodings)
        except Exception as error:  # noqa: BLE001 - the callers are told
            return error

    def _finish(self, run: RunningBatch, outcome: Outcome, infer_ms: float) -> RunningBatch | None:
        """Account for a batch that has run, and take the next."""
        with self._lock:
            self._running.remove(run)
            if not isinstance(outcome, Exception):
                self._count(run, infer_ms)
            elif len(run.batch) > 1:
                # Again in two halves, so that one bad text spoils no other's answer.
                run.halved = True
                middle = len(run.batch) // 2
                self._halves.extend((run.batch[:middle], run.batch[middle:]))
            return self._claim()

    def _learn(self, run: RunningBatch, outcome: Outcome, infer_ms: float) -> None:
        if not isinstance(outcome, Exception):
            with self._lock:
                self._cost.observe(len(run.batch), run.longest, infer_ms)

    def _count(self, run: RunningBatch, infer_ms: float) -> None:
        self.tally = Tally(
            batches=self.tally.batches + 1,
            texts=self.tally.texts + len(run.batch),
            useful_tokens=self.tally.useful_tokens + sum(text.tokens for text in run.batch),
            padded_tokens=self.tally.padded_tokens + len(run.batch) * run.longest,
            sizes=one_more(self.tally.sizes, len(run.batch)),
            busy_s=self.tally.busy_s + infer_ms / 1e3,
            work_ms=self.tally.work_ms + sum(text.work_ms for text in run.batch),
            cpu_s=self.tally.cpu_s + run.cpu_s,
        )
