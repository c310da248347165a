"""Newline-delimited JSON at `/predict`: a request a line in, an answer a line out, in order.

The stream is its own back-pressure: no more lines are read than are worked on, a line that finds the
queue full, or its key's second used up, waits and asks again, and a line that cannot be answered is answered by its error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from serving.core import Answered, Core
from serving.errors import Overloaded, RateLimited, TooLarge
from serving.protocols.asking import Asked
from serving.protocols.desk import Desk
from serving.protocols.leaving import CallerLeft, Receive
from serving.protocols.native import Native
from serving.protocols.rendering import write_error
from serving.request import Request
from serving.settings import ServeSettings

LINES = (b"application/x-ndjson", b"application/jsonl", b"application/jsonlines")
_AT_ONCE = 256  # enough to fill every lane's batches
_LEAST_WAIT_S = 0.05
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Lines:
    """The handler. Lines are bulk work unless they say otherwise."""

    def __init__(self, core: Core, settings: ServeSettings, desk: Desk) -> None:
        self._desk = desk
        self._free = settings.max_streams
        self._native = Native(core.package, settings)
        self._max_line_bytes = settings.max_body_bytes
        self._digest = core.package.digest.encode()

    async def __call__(self, request: Request, receive: Receive, send: Send) -> None:
        """One request: status 200 at once, then a line for each line.

        Raises `Overloaded` before, when there are as many streams as may be.
        """
        if not self._free:
            raise Overloaded("As many streams are open as may be.", retry_after_s=1.0)
        self._free -= 1
        try:
            await self._serve(request, receive, send)
        finally:
            self._free += 1

    async def _serve(self, request: Request, receive: Receive, send: Send) -> None:
        working: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_AT_ONCE)
        headers = [(b"content-type", LINES[0]), (b"x-package-digest", self._digest)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(request, receive, working, group))
                await _write(send, working)
        except* CallerLeft:
            pass
        else:
            await send({"type": "http.response.body", "body": b""})

    async def _read(
        self,
        request: Request,
        receive: Receive,
        working: asyncio.Queue[asyncio.Task[bytes] | None],
        group: asyncio.TaskGroup,
    ) -> None:
        number = 0
        try:
            async for line in _lines(receive, self._max_line_bytes):
                number += 1
                await working.put(group.create_task(self._answer(line, number, request)))
        except TooLarge as error:  # where the next line begins is not known
            last = replace(request, line=number + 1)
            await working.put(group.create_task(self._told(error, last)))
        await working.put(None)

    async def _told(self, error: Exception, request: Request) -> bytes:
        return write_error(self._desk.refused(request, error))

    async def _answer(self, line: bytes, number: int, stream: Request) -> bytes:
        """Each line is a request for those who observe. number: which it is, from 1."""
        request = replace(stream, line=number, began_s=time.perf_counter())
        try:
            asked = self._native.read(line, {})
            answered = await self._answered(asked, request)
            body = asked.write(answered).body
        except asyncio.CancelledError:  # the caller has left
            self._desk.left(request)
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: the other lines go on
            return await self._told(error, request)
        self._desk.answered(request, answered)
        return body

    async def _answered(self, asked: Asked, request: Request) -> Answered:
        charged = False
        while True:
            try:
                if not charged:
                    await self._desk.charge(request, asked)
                    charged = True
                return await self._desk.ask(request, asked)
            except (Overloaded, RateLimited) as error:
                await asyncio.sleep(max(_LEAST_WAIT_S, error.retry_after_s))


async def _write(send: Send, working: asyncio.Queue[asyncio.Task[bytes] | None]) -> None:
    while task := await working.get():
        body = await task + b"\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _lines(receive: Receive, max_bytes: int) -> AsyncIterator[bytes]:
    """Lines that are not blank. Raises `TooLarge`, `CallerLeft`."""
    rest, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        more = message.get("more_body", False)
        *whole, rest = (rest + message.get("body", b"")).split(b"\n")
        for line in whole if more else [*whole, rest]:
            _refuse_longer(line, max_bytes)
            if line.strip():
                yield line
        _refuse_longer(rest, max_bytes)


def _refuse_longer(line: bytes, max_bytes: int) -> None:
    if len(line) > max_bytes:
        raise TooLarge(f"A line is longer than {max_bytes} bytes; what follows is not read.")
