"""The load client counts right: nothing lost, nothing twice, no stall hidden, no time invented."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ServerUnreachable
from benchmarks.schedule import Schedule
from benchmarks.wire import NO_ANSWER, Body, Shot, WireRun, closed_loop, open_loop, send_each_once

BODIES = [Body(content=b'{"n": %d}\n' % i, texts=1 + i % 3) for i in range(20)]


@dataclass(kw_only=True)
class FakeServer:
    """Echoes each body after *delay_s*, and holds everything in the stall, [from, to] seconds.

    The clock begins with the first request. how: "length", "chunked" in single bytes, "close" after
    each answer, "drop" every third connection without one. status: by the number of the request.
    """

    delay_s: float = 0.0
    stall_s: tuple[float, float] = (0.0, 0.0)
    how: str = "length"
    status: Callable[[int], int] = lambda _: 200
    url: str = ""
    held: int = 0
    most_at_once: int = 0
    seen: Counter[bytes] = field(default_factory=Counter)
    _first_s: float | None = None
    _at_once: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                body = await reader.readexactly(length)
                self.seen[body] += 1
                number = self.seen.total()
                await self._hold()
                if self.how == "drop" and number % 3 == 0:
                    break
                await self._answer(writer, self.status(number), body)
                if self.how == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        self._first_s = self._first_s or loop.time()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        since_s = loop.time() - self._first_s
        await asyncio.sleep(self.delay_s)
        if self.stall_s[0] <= since_s < self.stall_s[1]:
            self.held += 1
            await asyncio.sleep(self.stall_s[1] - since_s)
        self._at_once -= 1

    async def _answer(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d Said\r\nX-Queue-Ms: 1.5\r\nx-infer-ms: 2.25\r\n" % status
        if self.how == "chunked":
            pieces = [b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body))]
            for piece in (head + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n"):
                writer.write(piece)
                await writer.drain()
            return
        close = b"connection: close\r\n" if self.how == "close" else b""
        writer.write(head + close + b"content-length: %d\r\n\r\n" % len(body) + body)


@contextmanager
def running(server: FakeServer) -> Iterator[FakeServer]:
    """*server* on a thread and a port of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=1024)

    async def close(listening: asyncio.Server) -> None:
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(close(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("how", ["length", "chunked", "close"])
def test_each_once_means_once(how: str) -> None:
    """Every body arrives once, its own answer comes back to it, with the times the server told."""
    with running(FakeServer(how=how)) as server:
        run = send_each_once(server.url, BODIES, connections=4)

    assert server.seen == Counter(body.content for body in BODIES)
    assert server.most_at_once <= 4
    assert sorted(shot.body for shot in run.shots) == list(range(len(BODIES)))
    for shot in run.shots:
        assert shot.answer == BODIES[shot.body].content
        assert (shot.status, shot.texts) == (200, BODIES[shot.body].texts)
        assert (shot.tokenize_ms, shot.queue_ms, shot.infer_ms) == (None, 1.5, 2.25)


def test_closed_loop_waits_for_each_answer() -> None:
    """No latency is below the server's delay, no connection has two requests, nothing is lost."""
    with running(FakeServer(delay_s=0.02)) as server:
        run = closed_loop(server.url, BODIES, connections=3, warmup_s=0.1, duration_s=0.4)

    assert server.most_at_once == 3
    assert run.shots, "a server this fast answers within the window"
    assert min(run.latencies_ms) >= 20
    assert run.errors == {}
    assert run.texts_per_s <= 3 * 3 / 0.02, "three connections, three texts at most, 20 ms each"
    assert server.seen.total() >= run.requests >= len(run.early) + len(run.shots)
    assert [shot.sent_s for shot in run.shots] == sorted(shot.sent_s for shot in run.shots)
    assert all(0.1 <= shot.sent_s < 0.5 for shot in run.shots)
    assert 0 < run.client_cpu_s <= run.load_s


def test_open_loop_keeps_its_schedule() -> None:
    """One shot for each arrival of the seeded process, whether or not the server keeps up.

    On two connections with 20 ms each no more than 100 a second are answered; 200 arrive, and what
    waits in the client has waited.
    """
    schedule = Schedule(rate_per_s=200, warmup_s=0.1, duration_s=0.5, seed=7)
    due_s = [at for at in schedule.due_s() if at >= 0.1]
    with running(FakeServer(delay_s=0.02)) as server:
        run = open_loop(
            server.url,
            BODIES,
            rate_per_s=200,
            warmup_s=0.1,
            duration_s=0.5,
            seed=7,
            connections=2,
        )

    assert [shot.sent_s for shot in run.shots] == due_s
    assert run.errors == {}
    assert server.most_at_once == 2
    assert run.percentile_ms(100) >= 1e3 * (len(due_s) / 100 - 0.5) > 100


def test_open_loop_sees_the_stall_that_the_closed_hides() -> None:
    """A server stands still for 0.4 s: one closed connection meets that once, arrivals all do."""
    stalling = FakeServer(stall_s=(0.2, 0.6))
    with running(stalling) as server:
        closed_loop(server.url, BODIES, connections=1, warmup_s=0, duration_s=0.9)
    assert stalling.held == 1

    with running(FakeServer(stall_s=(0.2, 0.6))) as server:
        run = open_loop(server.url, BODIES, rate_per_s=100, warmup_s=0, duration_s=0.9)
    due_s = Schedule(rate_per_s=100, warmup_s=0, duration_s=0.9).due_s()
    # The stall begins with the first request that arrives, so it ends no sooner than due_s[0] + 0.6.
    # It may begin late; who is due 0.1 s into it and 0.1 s before its end meets it all the same.
    met = [at for at in due_s if due_s[0] + 0.3 <= at <= due_s[0] + 0.5]
    assert len(met) >= 10
    assert sum(ms >= 100 for ms in run.latencies_ms) >= len(met)


def test_a_connection_that_ends_is_no_answer() -> None:
    """Requests whose connection the server drops count as unanswered, and the load goes on."""
    with running(FakeServer(how="drop")) as server:
        run = send_each_once(server.url, BODIES, connections=2)

    assert run.errors == {NO_ANSWER: len(BODIES) // 3}
    assert len(run.latencies_ms) == len(BODIES) - len(BODIES) // 3
    assert server.seen.total() == len(BODIES)


def test_refusals_are_errors_and_no_rate() -> None:
    """Answers other than 200 are counted by status and add no text."""
    with running(FakeServer(status=lambda number: 429 if number % 2 else 200)) as server:
        run = send_each_once(server.url, BODIES, connections=1)

    assert run.errors == {429: 10}
    answered = sum(body.texts for body in BODIES[1::2])
    assert run.texts_per_s == pytest.approx(answered / run.duration_s, rel=0.01)


@pytest.mark.parametrize("url", ["https://127.0.0.1", "127.0.0.1:80", "http://", "http://h:port"])
def test_only_plain_http_is_loaded(url: str) -> None:
    """What is no http://HOST:PORT is refused by name."""
    with pytest.raises(ServerUnreachable, match="HOST:PORT"):
        closed_loop(url, BODIES, connections=1, warmup_s=0, duration_s=1)


def test_nobody_there_is_one_sentence() -> None:
    """An address at which nobody listens ends the load at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # held and not listened at
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match=url):
            open_loop(url, BODIES, rate_per_s=10, warmup_s=0, duration_s=1)


@given(st.floats(0.001, 3.0), st.integers(1, 64), st.floats(0.0, 2.0), st.floats(0.1, 5.0))
def test_rate_does_not_depend_on_where_the_window_falls(
    call_s: float, texts: int, warmup_s: float, duration_s: float
) -> None:
    """Calls back to back give texts / call time exactly, wherever the window cuts them."""
    count = int((warmup_s + duration_s) / call_s) + 2
    shots = [
        Shot(sent_s=i * call_s, latency_ms=1e3 * call_s, status=200, texts=texts)
        for i in range(count)
    ]
    run = WireRun(
        shots=tuple(shot for shot in shots if shot.sent_s >= warmup_s),
        early=tuple(shot for shot in shots if shot.sent_s < warmup_s),
        warmup_s=warmup_s,
        duration_s=duration_s,
        requests=count,
        load_s=count * call_s,
        client_cpu_s=0.0,
    )

    assert run.steady_texts_per_s == pytest.approx(texts / call_s)
    off = run.texts_per_s - run.steady_texts_per_s
    assert abs(off) * duration_s <= texts * 1.001, "at most the call that an edge cuts"
