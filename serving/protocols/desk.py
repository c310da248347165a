"""Where every door leads: a request is charged, asked of the core, and made known to who observes.

Knows nothing of HTTP, gRPC or lines; a door reads before and writes after.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.access.gate import Gate
from serving.core import Answered, Core
from serving.errors import InternalError, ServingError
from serving.protocols.asking import Asking
from serving.request import Request

_log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told of every request, once, when it is over."""

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """It got its answers."""
        ...

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:
        """It got an error."""
        ...

    def left(self, request: Request, took_s: float) -> None:
        """Its caller did not wait."""
        ...


class Desk:
    """Asks *core* for those whom *gate* lets in; *observers* are told.

    enter: called in a request's task before its texts are asked for. closing: called at the end.
    """

    def __init__(
        self,
        core: Core,
        gate: Gate | None,
        observers: Sequence[Observer],
        *,
        enter: Callable[[Request], None] | None = None,
        closing: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._core = core
        self._gate = gate
        self._observers = observers
        self._enter = enter
        self._closing = closing

    async def charge(self, request: Request, asked: Asking) -> None:
        """Count the texts for the key. Raises `RateLimited`, `QuotaUsedUp`."""
        request.trail.texts, request.trail.pairs = asked.texts, asked.pairs
        request.trail.reading = asked.reading
        if self._gate:
            await self._gate.charge(request.key, len(asked.texts))

    async def ask(self, request: Request, asked: Asking) -> Answered:
        """Answers, not charged. Raises what `Core.ask` does."""
        if self._enter:
            self._enter(request)
        return await self._core.ask(
            asked.texts,
            asked.pairs,
            reading=asked.reading,
            fresh=request.fresh,
            # What stands beside the texts comes before what stands in the headers.
            within_ms=request.within_ms if asked.within_ms == math.inf else asked.within_ms,
            priority=asked.priority or request.priority,
        )

    def answered(self, request: Request, answered: Answered) -> None:
        """Make known that *request* is over."""
        took_s = time.perf_counter() - request.began_s
        for observer in self._observers:
            observer.answered(request, answered, took_s)

    def refused(self, request: Request, error: Exception) -> ServingError:
        """Make known that *request* failed, and what to tell its caller: nothing of a bug's inside."""
        if not isinstance(error, ServingError):
            _log.error(
                "A request failed; this is a bug", exc_info=error, extra={"request_id": request.id}
            )
            error = InternalError("The server failed on this request.")
        took_s = time.perf_counter() - request.began_s
        for observer in self._observers:
            observer.refused(request, error, took_s)
        return error

    async def close(self) -> None:
        """What observers have still to write or to send is written and sent, or given up in time."""
        for close in self._closing:
            await asyncio.to_thread(close)

    def left(self, request: Request) -> None:
        """Make known that nobody waits for *request* any more."""
        took_s = time.perf_counter() - request.began_s
        for observer in self._observers:
            observer.left(request, took_s)
