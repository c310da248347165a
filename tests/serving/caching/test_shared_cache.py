"""Laws of the cache in a real Redis: shared by replicas, and no request suffers for it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
import uvloop

from serving.caching.shared_cache import NoRedis, SharedCache
from serving.core import Core
from serving.engine import Engine
from serving.lanes import Lanes
from serving.package import Package
from serving.settings import ServeSettings

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
Redis = Any  # of the fixture `redis_server`
ROWS = {b"key one": b"row of one", b"key two": b"row of two"}


async def rows(shared: SharedCache, *keys: bytes) -> dict[bytes, bytes]:
    """What is there, without how long it will be."""
    return {key: found.row for key, found in (await shared.get(keys)).items()}


def run(
    url: str,
    scenario: Callable[[SharedCache], Coroutine[Any, Any, None]],
    *,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **limits: float,
) -> None:
    """With a cache on *url*; never for ever."""

    async def within() -> None:
        shared = SharedCache(url, **({"ttl_s": 60.0, "budget_ms": 500.0} | limits))
        await scenario(shared)
        await shared.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(within(), 30))


def test_what_one_wrote_another_reads(redis_server: Redis) -> None:
    """Bit for bit, and nothing of what nobody wrote; it expires."""

    async def write(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()

    async def read(shared: SharedCache) -> None:
        assert await rows(shared, *ROWS, b"key three") == ROWS

    run(redis_server.url, write)
    run(redis_server.url, read)

    ttls_ms = [redis_server.client().pttl(b"miniml:" + key) for key in ROWS]
    assert all(0 < int(ttl) <= 60_000 for ttl in ttls_ms)


def test_a_connection_that_was_torn_down_fails_nobody(redis_server: Redis) -> None:
    """On uvloop, as in a replica: at worst nothing is found, and the next one who asks finds it again."""

    async def ask_after_the_loss(shared: SharedCache) -> None:
        shared.put(ROWS)
        await shared.settled()
        for connection in shared._redis.connection_pool._available_connections:
            connection._writer.transport.abort()
        await asyncio.sleep(0)  # uvloop closes it in its next turn

        assert await rows(shared, *ROWS) == {}
        assert shared.failures == 1
        assert await rows(shared, *ROWS) == ROWS

    run(redis_server.url, ask_after_the_loss, loop=uvloop.new_event_loop)


def core_on(package: Package, url: str) -> Core:
    """A replica's heart that keeps answers for a minute, and shares them."""
    settings = ServeSettings(
        package="p", redis_url=url, cache_ttl_s=60.0, redis_budget_ms=5000.0, cache_bytes=2**20
    )
    return Core(package, Lanes(count=1, threads=1), settings)


async def settled(core: Core) -> None:
    """Once what it computed is in Redis."""
    assert core.cache
    assert core.cache._shared
    await core.cache._shared.settled()


def test_an_answer_is_known_for_its_time_wherever(
    package: Package, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when it was computed: whoever takes it from Redis keeps it no longer."""
    now_s = 1_000_000.0
    monkeypatch.setattr("serving.caching.cache.time.monotonic", lambda: now_s)
    monkeypatch.setattr("serving.caching.shared_cache.time.time", lambda: now_s)

    async def scenario() -> list[tuple[str, bool]]:
        nonlocal now_s
        cores = {name: core_on(package, redis_server.url) for name in ("one", "other")}
        known = []
        for seconds, name in (
            *((0, "one"), (40, "other"), (0, "one"), (19, "other"), (0, "one")),
            *((2, "other"), (0, "one"), (59, "one"), (0, "other"), (2, "one")),
        ):
            now_s += seconds
            answered = await cores[name].ask(["good soup"], None)
            known.append((name, bool(answered.cached)))
            for core in cores.values():
                await settled(core)
        for core in cores.values():
            await core.close()
        return known

    assert asyncio.run(scenario()) == [
        *(("one", False), ("other", True), ("one", True), ("other", True), ("one", True)),
        # A minute is over: the first computes, the other takes what it wrote, for what is left.
        *(("other", False), ("one", True), ("one", True), ("other", True), ("one", False)),
    ]


def test_two_packages_never_share_an_answer(
    make_package: MakePackage, listening: Listening, redis_server: Redis
) -> None:
    """Swapped at one address, behind one Redis: the new one's answers are its own, and the old's stay."""
    old, new = make_package(seed=0), make_package(seed=1)
    texts = ["good soup", "the staff was bad", "cold"]

    def ask(package: Package, cached: str, kept: int) -> None:
        with listening(package, redis_url=redis_server.url, redis_budget_ms=5000.0) as url:
            body = {"texts": texts, "logits": True}
            response = httpx.post(f"{url}/predict", json=body)
            given = [list(answer["logits"].values()) for answer in response.json()]
            assert given == Engine(package).logits(texts).tolist()
            assert response.headers["x-cache"] == cached
            deadline_s = time.monotonic() + 20
            while redis_server.client().dbsize() < kept:  # it is written in the background
                assert time.monotonic() < deadline_s
        assert redis_server.client().dbsize() == kept

    assert (Engine(old).logits(texts) != Engine(new).logits(texts)).any(axis=1).all()
    for package, cached, kept in (
        *((old, "miss", 3), (new, "miss", 6)),
        *((old, "hit", 6), (new, "hit", 6)),
    ):
        ask(package, cached, kept)


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
        assert await rows(shared, *ROWS) == {b"key one": ROWS[b"key one"]}

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
            shared_again = await rows(shared, *ROWS) == ROWS

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
        assert await rows(shared, *ROWS) == ROWS

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
