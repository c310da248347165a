"""Who sends what when: what all loads share, the closed loop, and every body once.

Callbacks from socket to socket and no task a request: a client that shares the cores with the
server must take as little of them as it can.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.wire.requests import Connection, Timings

_NO_ANSWER = 0
_RECONNECT_S = 0.05  # a server that refuses connections must not be hammered by a busy loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request: which body, when it was due (s since the load began)."""

    body: int
    sent_s: float


class Load(ABC):
    """Lines to one address, and a sample for every request: [body, sent_s, latency_ms, status, ...].

    job: what `benchmarks.wire` sends. requests: whole requests, one a body.
    """

    def __init__(self, job: Mapping[str, Any], requests: Sequence[bytes]) -> None:
        self.samples: list[list[Any]] = []
        self._address = (job["host"], job["port"])
        self._limit = int(job["connections"])
        self._keep = bool(job["keep_answers"])
        self._drain_s = float(job["drain_s"])
        self._end_s = float(job["warmup_s"]) + float(job.get("duration_s", 0.0))
        self._requests = requests
        self._under_way: dict[Connection, Ticket] = {}
        self._lines: set[Connection] = set()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._begin_s = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()

    async def connect(self) -> None:
        """Open the first lines. Raises OSError when nobody listens."""
        for _ in range(self._first_lines()):
            await self._open_line()

    async def run(self) -> None:
        """Send until the end, then wait for what is under way."""
        self._begin_s = time.perf_counter()
        self._begin()
        await self._done
        for task in self._reconnects:
            task.cancel()
        for line in tuple(self._lines):
            line.close()

    def elapsed_s(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self._begin_s

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

    def _shoot(self, line: Connection, ticket: Ticket) -> None:
        self._under_way[line] = ticket
        line.send(self._requests[ticket.body])

    def _answered(
        self, line: Connection, status: int, timings: Timings, body: bytes | None
    ) -> None:
        if (ticket := self._under_way.pop(line, None)) is None:
            return  # given up already
        self._keep_sample(ticket, status, timings, body)
        if self._stop_if_finished():
            return
        if line.usable:
            self._free(line)

    def _lost(self, line: Connection) -> None:
        self._lines.discard(line)
        if (ticket := self._under_way.pop(line, None)) is not None:
            self._unanswered(ticket)
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
            except OSError:
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

    def _keep_sample(
        self, ticket: Ticket, status: int, timings: Timings, body: bytes | None
    ) -> None:
        latency_ms = (self.elapsed_s() - ticket.sent_s) * 1e3
        answer = None if body is None else body.decode("latin-1")
        self.samples.append([ticket.body, ticket.sent_s, latency_ms, status, *timings, answer])

    def _unanswered(self, ticket: Ticket) -> None:
        """A sample of a request that got no answer."""
        self._keep_sample(ticket, _NO_ANSWER, [None, None, None], None)

    def _stop_if_finished(self) -> bool:
        if not self._done.done() and self._finished():
            self._done.set_result(None)
        return self._done.done()

    def _give_up(self) -> None:
        """The time to wait is over: what is under way gets no answer."""
        while self._under_way:
            _, ticket = self._under_way.popitem()
            self._unanswered(ticket)
        if not self._done.done():
            self._done.set_result(None)


class ClosedLoop(Load):
    """Every line asks again as soon as it is answered.

    It goes on after the end until all that was sent before is answered: else the last answers would
    come from a server that is less loaded.
    """

    def __init__(self, job: Mapping[str, Any], requests: Sequence[bytes]) -> None:
        super().__init__(job, requests)
        self._sent = 0

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
        return all(ticket.sent_s >= self._end_s for ticket in self._under_way.values())


class OnceLoop(Load):
    """Every body once, over lines that ask again as soon as they are answered."""

    def __init__(self, job: Mapping[str, Any], requests: Sequence[bytes]) -> None:
        super().__init__(job, requests)
        self._sent = 0

    def _first_lines(self) -> int:
        return min(self._limit, len(self._requests))

    def _begin(self) -> None:
        self._watch(answered=0)
        for line in tuple(self._lines):
            self._free(line)

    def _watch(self, answered: int) -> None:
        """Give up when nothing was answered since the last look."""
        if answered and answered == len(self.samples):
            self._give_up()
        else:
            self._loop.call_later(self._drain_s, self._watch, len(self.samples))

    def _free(self, line: Connection) -> None:
        if self._sent < len(self._requests):
            self._sent += 1
            self._shoot(line, Ticket(body=self._sent - 1, sent_s=self.elapsed_s()))

    def _finished(self) -> bool:
        return len(self.samples) == len(self._requests)

    def _give_up(self) -> None:
        while self._sent < len(self._requests):
            self._unanswered(Ticket(body=self._sent, sent_s=self.elapsed_s()))
            self._sent += 1
        super()._give_up()
