"""The bytes of a request, and one connection that carries one request at a time.

Knows HTTP/1.1 and nothing of loads: who sends what when is decided in `loops`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httptools

from serving.client import key_header

_TIMINGS = {b"x-tokenize-ms": 0, b"x-queue-ms": 1, b"x-infer-ms": 2}
_FINAL = 200  # statuses below are announcements; the answer is still to come
Timings = list[float | None]


def post_requests(
    content: bytes, sizes_bytes: Sequence[int], *, path: str, host: str, fresh: bool
) -> list[bytes]:
    """Whole POST requests, head and body, for bodies that stand one after another in *content*.

    fresh: no answer that the server knows already.
    """
    requests, start = [], 0
    more = {"cache-control": "no-cache"} if fresh else {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (more | key_header()).items())
    for size in sizes_bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"{lines}content-length: {size}\r\n\r\n"
        )
        requests.append(head.encode() + content[start : start + size])
        start += size
    return requests


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way.

    on_answer(connection, status, timings, body): the answer is whole. on_lost(connection): the connection ended;
    what was under way on it gets no answer. body is None unless *keep_answers*.
    """

    __slots__ = (
        "_body",
        "_keep",
        "_on_answer",
        "_on_lost",
        "_parser",
        "_timings",
        "_transport",
        "usable",
    )

    def __init__(
        self,
        on_answer: Callable[[Connection, int, Timings, bytes | None], None],
        on_lost: Callable[[Connection], None],
        *,
        keep_answers: bool,
    ) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._keep = keep_answers
        self._parser = httptools.HttpResponseParser(self)
        self._timings: Timings = [None, None, None]
        self._body: list[bytes] = []
        self._transport: Any = None
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = transport
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio."""
        self.usable = False
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def send(self, request: bytes) -> None:
        """Send a whole request; the one before must have been answered."""
        self._transport.write(request)

    def close(self) -> None:
        """End the connection; `on_lost` follows."""
        self.usable = False
        self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name[:2].lower() == b"x-" and (place := _TIMINGS.get(name.lower())) is not None:
            self._timings[place] = float(value)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._keep:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < _FINAL:
            return
        timings, self._timings = self._timings, [None, None, None]
        body = b"".join(self._body) if self._keep else None
        self._body.clear()
        if not self._parser.should_keep_alive():
            self.close()
        self._on_answer(self, status, timings, body)
