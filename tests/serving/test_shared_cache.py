"""Laws of the cache in a real Redis: shared by replicas, and no request suffers for it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.environment import free_ports
from serving.shared_cache import NoRedis, SharedCache

SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="no redis-server on this machine")
ROWS = {b"key one": b"row of one", b"key two": b"row of two"}


class Redis:
    """A real server on a port of its own."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        """As settings name it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> None:
        """Until it answers."""
        words = [str(SERVER), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *more]
        self.process = subprocess.Popen(words, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while True:
            try:
                self.client().ping()
            except redis.ConnectionError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            else:
                return

    def client(self) -> redis.Redis:
        """To look behind the scenes."""
        return redis.Redis(port=self.port)

    def stop(self) -> None:
        """And wait until it is gone."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """Stopped at the end."""
    running = Redis(tmp_path)
    yield running
    running.stop()


def run(
    url: str, scenario: Callable[[SharedCache], Coroutine[Any, Any, None]], **limits: float
) -> None:
    """With a cache on *url*; never for ever."""

    async def within() -> None:
        shared = SharedCache(url, **({"ttl_s": 60.0, "budget_ms": 500.0} | limits))
        await scenario(shared)
        await shared.close()

    asyncio.run(asyncio.wait_for(within(), 30))


def test_what_one_wrote_another_reads(server: Redis) -> None:
    """Bit for bit, and nothing of what nobody wrote; it expires."""

    async def write(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()

    async def read(shared: SharedCache) -> None:
        assert await shared.get([*ROWS, b"key three"]) == ROWS

    run(server.url, write)
    run(server.url, read)

    ttls_ms = [server.client().pttl(b"miniml:" + key) for key in ROWS]
    assert all(0 < int(ttl) <= 60_000 for ttl in ttls_ms)


def test_garbage_is_not_believed(server: Redis) -> None:
    """Values that others wrote, of any length or kind, are as good as none."""
    client = server.client()
    for key, value in {b"a": b"", b"b": b"short", b"c": b"x" * 20, b"d": b"x" * 10_000}.items():
        client.set(b"miniml:" + key, value)
    client.lpush(b"miniml:list", "not a string")

    async def scenario(shared: SharedCache) -> None:
        assert await shared.get([b"a", b"b", b"c", b"d", b"list"]) == {}
        shared.put(ROWS)
        await shared.settled()
        client.copy("miniml:key one", "miniml:key two", replace=True)
        assert await shared.get(list(ROWS)) == {b"key one": ROWS[b"key one"]}

    run(server.url, scenario)


def test_a_redis_that_is_gone_costs_nothing_and_is_used_again(server: Redis) -> None:
    """Stopped: no answers, no exceptions, and it is left alone. Back: used within the pause."""

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        server.stop()
        for _ in range(20):
            assert await shared.get(list(ROWS)) == {}
            shared.put(ROWS)
        assert shared.resting
        assert shared.failures < 10, "it is not asked each time"
        server.start()
        shared_again = False
        while not shared_again:  # within the pause of the breaker; else the test's time ends
            shared.put(ROWS)
            await asyncio.sleep(0.1)
            shared_again = await shared.get(list(ROWS)) == ROWS

    run(server.url, scenario)


def test_a_redis_that_hangs_takes_its_budget_and_no_more(server: Redis) -> None:
    """Stopped by a signal it holds connections open and says nothing: a try ends, and soon there is none."""

    async def scenario(shared: SharedCache) -> None:
        assert await shared.get([b"a"]) == {}  # the connection is made
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(50):
            assert await shared.get([b"a"]) == {}
        server.process.send_signal(signal.SIGCONT)

        assert shared.failures <= 5  # the first three, and a try for each pause that passed

    run(server.url, scenario, budget_ms=100.0)


def test_a_full_redis_keeps_what_it_has(server: Redis) -> None:
    """Without room it refuses writes: reads still answer and nothing is raised."""

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        server.client().config_set("maxmemory", 1)
        shared.put({b"key three": b"no room"})
        await shared.settled()
        assert await shared.get(list(ROWS)) == ROWS

    run(server.url, scenario)


def test_clear_removes_ours_and_nothing_else(server: Redis) -> None:
    """Every answer goes, other people's keys stay."""
    server.client().set("theirs", "stays")

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        assert await shared.clear() == len(ROWS)
        assert await shared.get(list(ROWS)) == {}

    run(server.url, scenario)
    assert server.client().get("theirs") == b"stays"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:port"])
def test_an_address_that_is_none_is_one_sentence(url: str) -> None:
    """It is refused before anything is asked."""
    with pytest.raises(NoRedis, match="no address of a Redis"):
        SharedCache(url, ttl_s=1.0, budget_ms=1.0)
