"""Laws of the cache in a real Redis: shared by replicas, and no request suffers for it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.shared_cache import NoRedis, SharedCache

Redis = Any  # of the fixture `redis_server`
ROWS = {b"key one": b"row of one", b"key two": b"row of two"}


def run(
    url: str, scenario: Callable[[SharedCache], Coroutine[Any, Any, None]], **limits: float
) -> None:
    """With a cache on *url*; never for ever."""

    async def within() -> None:
        shared = SharedCache(url, **({"ttl_s": 60.0, "budget_ms": 500.0} | limits))
        await scenario(shared)
        await shared.close()

    asyncio.run(asyncio.wait_for(within(), 30))


def test_what_one_wrote_another_reads(redis_server: Redis) -> None:
    """Bit for bit, and nothing of what nobody wrote; it expires."""

    async def write(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()

    async def read(shared: SharedCache) -> None:
        assert await shared.get([*ROWS, b"key three"]) == ROWS

    run(redis_server.url, write)
    run(redis_server.url, read)

    ttls_ms = [redis_server.client().pttl(b"miniml:" + key) for key in ROWS]
    assert all(0 < int(ttl) <= 60_000 for ttl in ttls_ms)


def test_garbage_is_not_believed(redis_server: Redis) -> None:
    """Values that others wrote, of any length or kind, are as good as none."""
    client = redis_server.client()
    for key, value in {b"a": b"", b"b": b"short", b"c": b"x" * 20, b"d": b"x" * 10_000}.items():
        client.set(b"miniml:" + key, value)
    client.lpush(b"miniml:list", "not a string")

    async def scenario(shared: SharedCache) -> None:
        assert await shared.get([b"a", b"b", b"c", b"d", b"list"]) == {}
        shared.put(ROWS)
        await shared.settled()
        client.copy("miniml:key one", "miniml:key two", replace=True)
        assert await shared.get(list(ROWS)) == {b"key one": ROWS[b"key one"]}

    run(redis_server.url, scenario)


def test_a_redis_that_is_gone_costs_nothing_and_is_used_again(redis_server: Redis) -> None:
    """Stopped: no answers, no exceptions, and it is left alone. Back: used within the pause."""

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        redis_server.stop()
        for _ in range(20):
            assert await shared.get(list(ROWS)) == {}
            shared.put(ROWS)
        assert shared.resting
        assert shared.failures < 10, "it is not asked each time"
        redis_server.start()
        shared_again = False
        while not shared_again:  # within the pause of the breaker; else the test's time ends
            shared.put(ROWS)
            await asyncio.sleep(0.1)
            shared_again = await shared.get(list(ROWS)) == ROWS

    run(redis_server.url, scenario)


def test_a_redis_that_hangs_takes_its_budget_and_no_more(redis_server: Redis) -> None:
    """Stopped by a signal it holds connections open and says nothing: a try ends, and soon there is none."""

    async def scenario(shared: SharedCache) -> None:
        assert await shared.get([b"a"]) == {}  # the connection is made
        redis_server.process.send_signal(signal.SIGSTOP)
        for _ in range(50):
            assert await shared.get([b"a"]) == {}
        redis_server.process.send_signal(signal.SIGCONT)

        assert shared.failures <= 5  # the first three, and a try for each pause that passed

    run(redis_server.url, scenario, budget_ms=100.0)


def test_a_full_redis_keeps_what_it_has(redis_server: Redis) -> None:
    """Without room it refuses writes: reads still answer and nothing is raised."""

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        redis_server.client().config_set("maxmemory", 1)
        shared.put({b"key three": b"no room"})
        await shared.settled()
        assert await shared.get(list(ROWS)) == ROWS

    run(redis_server.url, scenario)


def test_clear_removes_ours_and_nothing_else(redis_server: Redis) -> None:
    """Every answer goes, other people's keys stay."""
    redis_server.client().set("theirs", "stays")

    async def scenario(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        assert await shared.clear() == len(ROWS)
        assert await shared.get(list(ROWS)) == {}

    run(redis_server.url, scenario)
    assert redis_server.client().get("theirs") == b"stays"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:port"])
def test_an_address_that_is_none_is_one_sentence(url: str) -> None:
    """It is refused before anything is asked."""
    with pytest.raises(NoRedis, match="no address of a Redis"):
        SharedCache(url, ttl_s=1.0, budget_ms=1.0)
