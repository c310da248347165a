"""The open loop: requests arrive when they arrive, whether or not the server keeps up."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.schedule import Schedule
from benchmarks.wire.loops import Load, Ticket
from benchmarks.wire.requests import Connection

_TICK_S, _SPIN_S = 0.001, 0.00025


class OpenLoop(Load):
    """Requests arrive when the schedule says and take the line that was used last.

    That one is sure to be alive: servers close lines that idle. More are opened when all are busy.
    """

    def __init__(
        self, job: Mapping[str, Any], requests: Sequence[bytes], *rest: Any, **by_name: Any
    ) -> None:
        super().__init__(job, requests, *rest, **by_name)
        self._due_s = Schedule(**job["schedule"]).due_s()
        self._arrived = 0
        self._idle: list[Connection] = []
        self._waiting: deque[Ticket] = deque()

    def _first_lines(self) -> int:
        return 1

    def _begin(self) -> None:
        self._idle.extend(self._lines)
        self._loop.call_later(self._end_s + self._drain_s, self._give_up)
        self._arrive()

    def _arrive(self) -> None:
        """Take in all that is due, then wait for the next."""
        now_s = self.elapsed_s()
        while self._arrived < len(self._due_s) and self._due_s[self._arrived] <= now_s:
            body = self._arrived % len(self._requests)
            self._waiting.append(Ticket(body=body, sent_s=self._due_s[self._arrived]))
            self._arrived += 1
        self._serve()
        if self._arrived < len(self._due_s):
            wait_s = self._due_s[self._arrived] - self.elapsed_s()
            # uvloop rounds to milliseconds: through less than half of one it would spin.
            self._loop.call_later(
                max(wait_s, _TICK_S) if wait_s > _SPIN_S else wait_s, self._arrive
            )
        else:
            self._stop_if_finished()

    def _serve(self) -> None:
        """Waiting requests onto idle lines; more lines when that is not enough."""
        while self._waiting and self._idle:
            line = self._idle.pop()
            if line.usable:
                self._shoot(line, self._waiting.popleft())
        opening = len(self._reconnects)
        more = min(len(self._waiting) - opening, self._limit - len(self._lines) - opening)
        for _ in range(more):
            super()._replace()

    def _free(self, line: Connection) -> None:
        self._idle.append(line)
        self._serve()

    def _replace(self) -> None:
        self._serve()  # opens a line when one is needed

    def _refused(self) -> None:
        if self._waiting:
            self._unanswered(self._waiting.popleft())
            self._stop_if_finished()

    def _finished(self) -> bool:
        return self._arrived == len(self._due_s) and not self._waiting and not self._under_way

    def _give_up(self) -> None:
        while self._waiting:
            self._unanswered(self._waiting.popleft())
        super()._give_up()
