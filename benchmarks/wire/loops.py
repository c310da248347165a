"""Who sends what when: what all loads share, the closed loop, and every body once.

Callbacks from socket to socket and no task a request: a client that shares the cores with the
server must take as little of them as it can.
"""

from __future__ import annotations

import asyncio
import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.samples import SampleFile
from benchmarks.wire.requests import Connection, Timings

_NO_ANSWER = 0
_RECONNECT_S = 0.05  # a server that refuses connections must not be hammered by a busy loop
_BEAT_S = 0.02
_FLUSH_BEATS = 10
_NEVER_S, _NAN = float("inf"), float("nan")
_NOT_TOLD: Timings = [None, None, None]


def is_out_of_files(error: OSError) -> bool:
    """Whether no more connections can be opened by this process, or this machine."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request: which body, when it was due (s since the load began)."""

    body: int
    sent_s: float


class Load(ABC):
    """Lines to one address, and a sample for every request.

    job: what `benchmarks.wire` sends. requests: whole requests, one a body. clock: in seconds.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        requests: Sequence[bytes],
        samples: SampleFile,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._samples = samples
        self._answers: dict[int, str] = {}
        self._lags_ms: list[float] = []
        self._address = (job["host"], job["port"])
        self._limit = int(job["connections"])
        self._keep = bool(job.get("keep_answers"))
        self._drain_s = float(job["drain_s"])
        self._end_s = float(job["warmup_s"]) + float(job.get("duration_s", 0.0))
        self._requests = requests
        self._under_way: dict[Connection, tuple[Ticket, float]] = {}  # and when it was shot
        self._lines: set[Connection] = set()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._begin_s = clock()
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._interrupted = self._out_of_files = False

    async def connect(self) -> None:
        """Open the first lines. Raises OSError when nobody listens."""
        for _ in range(self._first_lines()):
            await self._open_line()

    async def run(self) -> None:
        """Send until the end, then wait for what is under way."""
        self._begin_s = self._clock()
        self._beat(0, self._begin_s)
        if not self._done.done():
            self._begin()
        await self._done
        for task in self._reconnects:
            task.cancel()
        for line in tuple(self._lines):
            line.close()

    def interrupt(self) -> None:
        """End now; what is under way is not waited for and leaves no sample."""
        self._interrupted = True
        self._stop()

    def end(self) -> dict[str, Any]:
        """What is known only at the end."""
        return {
            "load_s": self.elapsed_s(),
            "began_s": self._begin_s,
            "clients": [],
            "interrupted": self._interrupted,
            "out_of_files": self._out_of_files,
            "answers": self._answers,
        }

    def client(self, cpu_s: float) -> dict[str, Any]:
        """This process, as the end tells it."""
        return {"cpu_s": cpu_s, "lags_ms": self._lags_ms}

    def elapsed_s(self) -> float:
        """Seconds since the load began."""
        return self._clock() - self._begin_s

    @abstractmethod
    def _first_lines(self) -> int:
        """How many lines to open before the load begins."""

    @abstractmethod
    def _begin(self) -> None:
        """Send the first requests and arrange the rest."""

    @abstractmethod
    def _free(self, line: Connection) -> None:
        """*line* can carry a request."""

    @abstractmethod
    def _finished(self) -> bool:
        """Whether nothing is to be waited for; asked after each answer."""

    def _beat(self, count: int, due_s: float) -> None:
        """See how late our own clock is, and let who watches see the samples."""
        self._lags_ms.append(round((self._clock() - due_s) * 1e3, 2))
        if count % _FLUSH_BEATS == 0:
            self._samples.flush()
        if not self._done.done():
            now_s = self._clock()
            self._loop.call_later(_BEAT_S, self._beat, count + 1, now_s + _BEAT_S)

    def _shoot(self, line: Connection, ticket: Ticket) -> None:
        self._under_way[line] = (ticket, self.elapsed_s())
        line.send(self._requests[ticket.body])

    def _answered(
        self, line: Connection, status: int, timings: Timings, body: bytes | None
    ) -> None:
        if (shot := self._under_way.pop(line, None)) is None:
            return  # given up already
        if body is not None:
            self._answers[self._samples.count] = body.decode("latin-1")
        self._keep_sample(*shot, status, timings)
        if self._stop_if_finished():
            return
        if line.usable:
            self._free(line)

    def _lost(self, line: Connection) -> None:
        self._lines.discard(line)
        if (shot := self._under_way.pop(line, None)) is not None:
            self._keep_sample(*shot, _NO_ANSWER, _NOT_TOLD)
        if not self._stop_if_finished():
            self._replace()

    def _replace(self) -> None:
        """Open a line instead of one that was lost."""
        task = self._loop.create_task(self._reopen())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    async def _reopen(self) -> None:
        while not self._done.done():
            try:
                line = await self._open_line()
            except OSError as error:
                if is_out_of_files(error):
                    self._out_of_files = True
                    self._stop()
                    return
                self._refused()
                await asyncio.sleep(_RECONNECT_S)
            else:
                if not self._done.done():
                    self._free(line)
                return

    def _refused(self) -> None:
        """A connection was refused after the load began."""
        self._stop_if_finished()

    async def _open_line(self) -> Connection:
        def make() -> Connection:
            return Connection(self._answered, self._lost, keep_answers=self._keep)

        _, line = await self._loop.create_connection(make, *self._address)
        self._lines.add(line)
        return line

    def _keep_sample(self, ticket: Ticket, shot_s: float, status: int, timings: Timings) -> None:
        due_s = ticket.sent_s
        latency_ms = (self.elapsed_s() - due_s) * 1e3
        told = (_NAN if timing is None else timing for timing in timings)
        late_ms = (shot_s - due_s) * 1e3
        self._samples.add(ticket.body, due_s, latency_ms, late_ms, status, *told)

    def _unanswered(self, ticket: Ticket) -> None:
        """A sample of a request that was never sent."""
        self._keep_sample(ticket, _NEVER_S, _NO_ANSWER, _NOT_TOLD)

    def _stop_if_finished(self) -> bool:
        if not self._done.done() and self._finished():
            self._done.set_result(None)
        return self._done.done()

    def _stop(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _give_up(self) -> None:
        """The time to wait is over: what is under way gets no answer."""
        while self._under_way:
            _, shot = self._under_way.popitem()
            self._keep_sample(*shot, _NO_ANSWER, _NOT_TOLD)
        self._stop()


class ClosedLoop(Load):
    """Every line asks again as soon as it is answered.

    It goes on after the end until all that was sent before is answered: else the last answers would
    come from a server that is less loaded.
    """

    _sent = 0

    def _first_lines(self) -> int:
        return self._limit

    def _begin(self) -> None:
        self._loop.call_later(self._end_s + self._drain_s, self._give_up)
        for line in tuple(self._lines):
            self._free(line)

    def _free(self, line: Connection) -> None:
        body = self._sent % len(self._requests)
        self._sent += 1
        self._shoot(line, Ticket(body=body, sent_s=self.elapsed_s()))

    def _finished(self) -> bool:
        if self.elapsed_s() < self._end_s:
            return False
        return all(ticket.sent_s >= self._end_s for ticket, _ in self._under_way.values())


class OnceLoop(Load):
    """Every body once, over lines that ask again as soon as they are answered."""

    _sent = 0

    def _first_lines(self) -> int:
        return min(self._limit, len(self._requests))

    def _begin(self) -> None:
        self._watch(answered=0)
        for line in tuple(self._lines):
            self._free(line)

    def _watch(self, answered: int) -> None:
        """Give up when nothing was answered since the last look."""
        if answered and answered == self._samples.count:
            self._give_up()
        else:
            self._loop.call_later(self._drain_s, self._watch, self._samples.count)

    def _free(self, line: Connection) -> None:
        if self._sent < len(self._requests):
            self._sent += 1
            self._shoot(line, Ticket(body=self._sent - 1, sent_s=self.elapsed_s()))

    def _finished(self) -> bool:
        return self._samples.count == len(self._requests)

    def _give_up(self) -> None:
        while self._sent < len(self._requests):
            self._unanswered(Ticket(body=self._sent, sent_s=self.elapsed_s()))
            self._sent += 1
        super()._give_up()
