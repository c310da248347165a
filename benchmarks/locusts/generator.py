"""What one process of Locust sends, and what it sees of it.

Users come for tickets: in a closed loop they get one at once, in an open loop when it is due. A user
that comes late for a ticket has not been free before, and its wait counts.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent
from gevent.event import Event

from benchmarks.samples import SampleRow
from benchmarks.schedule import Schedule

_BEAT_S = 0.02
_NO_ANSWER = 0
KeepRow = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTicket:
    """A request to be sent: which body, when it is due; a closed loop's is due when it is sent."""

    number: int
    body: int
    due_s: float
    sent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which of the schedule is this process's: each *of*-th, from *index*; and when it begins.

    began_s: by this process's `time.perf_counter`.
    """

    index: int = 0
    of: int = 1
    began_s: float


class Generator:
    """One load. schedule: None in a closed loop. end_s: when a closed loop ends, maybe never.

    keep: gets each row of `benchmarks.samples`.
    """

    def __init__(
        self,
        bodies: Sequence[bytes],
        keep: KeepRow,
        *,
        schedule: Schedule | None,
        end_s: float,
        drain_s: float,
    ) -> None:
        self.bodies = bodies
        self.done = Event()
        self.interrupted = self.out_of_files = False
        self._keep = keep
        self._schedule = schedule
        self._end_s, self._drain_s = end_s, drain_s
        self._due_s: list[float] = []
        self._part: Part | None = None
        self._begun = Event()
        self._taken = 0  # tickets, of which some users still wait for the time
        self._waiting = 0
        self._under_way: dict[int, LoadTicket] = {}
        self._lags_ms: list[float] = []
        self._cpu_s = 0.0
        self._load_s = 0.0

    def begin(self, part: Part) -> None:
        """Let the users start at the time the part names."""
        self._part = part
        if self._schedule:
            self._due_s = self._schedule.due_s()[part.index :: part.of]
        gevent.sleep(max(part.began_s - time.perf_counter(), 0.0))
        self._cpu_s = time.process_time()
        gevent.spawn(self._beat)
        self._begun.set()

    def take(self) -> LoadTicket:
        """The next request, when it is due. At the end it never comes: users are then stopped."""
        self._begun.wait()
        self._rest_if_finished()
        number = self._taken
        self._taken += 1
        if not self._schedule:
            now_s = self.elapsed_s()
            return self._on_its_way(number, due_s=now_s, sent_s=now_s)
        if number >= len(self._due_s):
            Event().wait()  # until Locust stops this user
        due_s = self._due_s[number]
        if (wait_s := due_s - self.elapsed_s()) > 0:
            self._waiting += 1
            gevent.sleep(wait_s)
            self._waiting -= 1
        return self._on_its_way(number, due_s=due_s, sent_s=self.elapsed_s())

    def answered(self, ticket: LoadTicket, status: int, error: object = None) -> float:
        """Keep what came of it; the latency in ms. What comes after the end is not kept."""
        latency_ms = (self.elapsed_s() - ticket.due_s) * 1e3
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self.out_of_files = True
            self._finish()
        if self._under_way.pop(ticket.number, None) is not None and not self.done.is_set():
            self._row(ticket, latency_ms, status)
            self._finish_if_finished()
        return latency_ms

    def elapsed_s(self) -> float:
        """Seconds since the load began."""
        assert self._part is not None, "asked before it began; this is a bug"
        return time.perf_counter() - self._part.began_s

    def interrupt(self) -> None:
        """End now; what is under way leaves no sample."""
        if not self.done.is_set():
            self.interrupted = True
            self._finish()

    def end(self) -> dict[str, object]:
        """What is known only at the end, of this process."""
        return {
            "load_s": self._load_s,
            "began_s": self._part.began_s if self._part else 0.0,
            "interrupted": self.interrupted,
            "out_of_files": self.out_of_files,
            "clients": [{"cpu_s": self._cpu_s, "lags_ms": self._lags_ms}],
        }

    def _on_its_way(self, number: int, *, due_s: float, sent_s: float) -> LoadTicket:
        place = number * self._part.of + self._part.index if self._part else number
        body = place % len(self.bodies)
        ticket = LoadTicket(number=number, body=body, due_s=due_s, sent_s=sent_s)
        self._under_way[number] = ticket
        return ticket

    def _row(self, ticket: LoadTicket, latency_ms: float, status: int) -> None:
        row = SampleRow(
            body=ticket.body,
            sent_s=ticket.due_s,
            latency_ms=latency_ms,
            late_ms=(ticket.sent_s - ticket.due_s) * 1e3,
            status=status,
        )
        self._keep(*row)

    def _beat(self) -> None:
        """See how late our own clock is, and give up what has waited too long."""
        while not self.done.is_set():
            due_s = time.perf_counter() + _BEAT_S
            gevent.sleep(_BEAT_S)
            self._lags_ms.append(round((time.perf_counter() - due_s) * 1e3, 2))
            if self.elapsed_s() > self._end_s + self._drain_s:
                self._give_up()
            else:
                self._finish_if_finished()

    def _finished(self) -> bool:
        """A closed loop goes on until all that was sent before the end is answered."""
        if self._schedule:
            left = len(self._due_s) - self._taken
            return left <= 0 and not self._waiting and not self._under_way
        if self.elapsed_s() < self._end_s:
            return False
        return all(ticket.due_s >= self._end_s for ticket in self._under_way.values())

    def _finish_if_finished(self) -> None:
        if not self.done.is_set() and self._finished():
            self._finish()

    def _rest_if_finished(self) -> None:
        self._finish_if_finished()
        if self.done.is_set():
            Event().wait()  # until Locust stops this user

    def _give_up(self) -> None:
        """What is under way gets no answer, what nobody came for was never sent."""
        for ticket in self._under_way.values():
            self._row(ticket, (self.elapsed_s() - ticket.due_s) * 1e3, _NO_ANSWER)
        for number in range(self._taken, len(self._due_s)):
            never = self._on_its_way(number, due_s=self._due_s[number], sent_s=math.inf)
            self._row(never, (self.elapsed_s() - never.due_s) * 1e3, _NO_ANSWER)
        self._finish()

    def _finish(self) -> None:
        if self._part:
            self._cpu_s = time.process_time() - self._cpu_s
            self._load_s = self.elapsed_s()
        self.done.set()
