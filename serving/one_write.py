"""Head and body of an answer in one write to the socket.

uvicorn writes one after the other, and uvloop sends what it is given at once, so an answer is two system
calls here, and then two of each in HAProxy and in the caller.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Beyond it what is held goes out at once: uvicorn makes an app wait by what the socket does not take,
# of which it learns only then.
_MOST_BYTES = 16 * 1024


def write_answers_once() -> None:
    """Of the servers of uvicorn that this process starts from now on, where they name no protocol."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{OneWrite.__name__}"


class OneWrite(HttpToolsProtocol):
    """uvicorn's own protocol, over a `Gathering` transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        self._gathering = Gathering(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._gathering))

    def on_response_complete(self) -> None:
        """As uvicorn calls it: an answer that is whole waits for no other's."""
        self._gathering.send()
        super().on_response_complete()


class Gathering:
    """*transport*, but what is written to it in one turn of *loop* is sent together, in the next at the latest."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Hold *data*, or send all that is held where it is much."""
        if not self._held:
            self._loop.call_soon(self.send)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            self.send()

    def close(self) -> None:
        """Send what is held, and close."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Send what is held now."""
        held, self._held, self._bytes = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's."""
        return getattr(self._transport, name)
