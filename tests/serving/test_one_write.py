"""Laws of gathered writes: the same bytes as uvicorn alone sends, nothing held back, in fewer writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.one_write import OneWrite, write_answers_once

MUCH = 16 * 1024  # is held at most, and sent at once when there is more
_RUNNING_S = 10.0
# Of an answer: chunks of its body, and whether another task runs after one.
Answer = list[tuple[bytes, bool]]
CHUNK = st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * MUCH, b"y" * 3 * MUCH]))
ANSWER = st.lists(st.tuples(CHUNK, st.booleans()), min_size=1, max_size=4)


class Wire:
    """Stands for a socket: keeps what is written, write by write, in order with its end."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.changed = asyncio.Event()
        self.closed = False

    def write(self, data: bytes) -> None:
        """As a transport's."""
        assert not self.closed
        self.sent.append(data)
        self.changed.set()

    def close(self) -> None:
        """As a transport's."""
        self.closed = True
        self.changed.set()

    def is_closing(self) -> bool:
        """As a transport's."""
        return self.closed

    def get_extra_info(self, _: str) -> None:
        """It is no socket."""

    def __getattr__(self, _: str) -> Any:
        """Buffers are never full."""
        return lambda *_: None

    async def until(self, true: Any) -> None:
        """Wait until it is, after something was sent or the wire was closed."""
        async with asyncio.timeout(_RUNNING_S):
            while not true():
                self.changed.clear()
                await self.changed.wait()


def connected(protocol: type[HttpToolsProtocol], app: Any) -> tuple[HttpToolsProtocol, Wire]:
    """A connection that *protocol* serves, and what it writes to."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    made, wire = protocol(config, ServerState(), {}, asyncio.get_running_loop()), Wire()
    made.connection_made(wire)  # type: ignore[arg-type]
    return made, wire


async def sent(
    protocol: type[HttpToolsProtocol], answers: Sequence[Answer], *, last: bytes = b""
) -> list[bytes]:
    """The writes that answer one pipelined request for each of *answers*; then the server closes.

    last: a header of the last request.
    """

    async def app(scope: Any, _: Any, send: Any) -> None:
        answer = answers[int(scope["path"].strip("/"))]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, (chunk, pause) in enumerate(answer, 1):
            more = number < len(answer)
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
            if pause:
                await asyncio.sleep(0)

    made, wire = connected(protocol, app)
    for number in range(len(answers)):
        header = last if number == len(answers) - 1 else b""
        made.data_received(b"GET /%d HTTP/1.1\r\nhost: a\r\n%s\r\n" % (number, header))
    await wire.until(lambda: made.server_state.total_requests == len(answers))
    made.shutdown()
    await wire.until(lambda: wire.closed)
    return wire.sent


@given(
    answers=st.lists(ANSWER, min_size=1, max_size=3),
    last=st.sampled_from([b"", b"connection: close\r\n"]),
)
def test_the_bytes_are_those_that_uvicorn_alone_sends(answers: list[Answer], last: bytes) -> None:
    """Whatever an app sends, in whatever pieces, for pipelined requests too; in no more writes."""

    async def both() -> tuple[list[bytes], list[bytes]]:
        return (
            await sent(OneWrite, answers, last=last),
            await sent(HttpToolsProtocol, answers, last=last),
        )

    ours, alone = asyncio.run(both())
    assert b"".join(ours) == b"".join(alone)
    assert len(ours) <= len(alone)


def test_an_answer_is_one_write() -> None:
    """Head and body together, where uvicorn alone takes two."""
    answer = [(b'{"label":"good"}', False)]

    assert len(asyncio.run(sent(OneWrite, [answer]))) == 1
    assert len(asyncio.run(sent(HttpToolsProtocol, [answer]))) == 2


def test_a_whole_answer_waits_for_no_other() -> None:
    """It has gone out when the app is told that its last piece was taken."""

    async def run() -> None:
        gone: list[int] = []

        async def app(_: Any, __: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole"})
            gone.append(len(wire.sent))

        made, wire = connected(OneWrite, app)
        made.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await wire.until(lambda: gone)
        assert gone == [1]

    asyncio.run(run())


def test_what_is_streamed_is_not_held_back() -> None:
    """An app that waits for its caller's reaction to a piece gets it."""

    async def run() -> None:
        seen = asyncio.Event()

        async def app(_: Any, __: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await seen.wait()
            await send({"type": "http.response.body", "body": b"second"})

        made, wire = connected(OneWrite, app)
        made.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await wire.until(lambda: b"first" in b"".join(wire.sent))
        seen.set()
        await wire.until(lambda: b"second" in b"".join(wire.sent))

    asyncio.run(run())


def test_nothing_is_written_to_who_has_left() -> None:
    """A connection that ended between an answer and its sending takes nothing any more."""

    async def run() -> list[bytes]:
        async def app(_: Any, __: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            wire.close()
            await send({"type": "http.response.body", "body": b"late"})

        made, wire = connected(OneWrite, app)
        made.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await wire.until(lambda: made.server_state.total_requests == 1)
        await asyncio.sleep(0)
        return wire.sent

    assert asyncio.run(run()) == []


def test_servers_that_name_no_protocol_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's of replicas and proxies do; one that names its own keeps that."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    write_answers_once()
    taken = uvicorn.Config("a:b", log_config=None)
    own = uvicorn.Config("a:b", http="h11", log_config=None)
    for config in (taken, own):
        config.app = lambda: None
        config.load()

    assert taken.http_protocol_class is OneWrite
    assert own.http_protocol_class is not OneWrite
