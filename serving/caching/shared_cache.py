"""Answers that replicas share, in Redis: a helper that may be slow, full, wrong or gone.

It is asked within a budget of milliseconds and left alone while it fails. What it says is believed
only with the right checksum, since anybody may write there. A value is a row, when it was computed
(milliseconds since 1970, 8 bytes), and the checksum of both with the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from serving.caching.breaker import Breaker
from serving.errors import RedisUnreachable, ServingError

_CHECK_BYTES = 8
_STAMP = struct.Struct("<Q")
_PREFIX = b"miniml:"
_WRITES_AT_ONCE = 32
_CLEAR_COUNT = 1000
_LONGEST_S = 5.0  # for one command of `clear`, which has no budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A row that somebody computed, and for how many seconds it is known still."""

    row: bytes
    left_s: float


class NoRedis(ServingError):
    """The address names no Redis."""


class SharedCache:
    """Rows of logits by key, for *ttl_s*. Never raises for Redis's sake."""

    def __init__(self, url: str, *, ttl_s: float, budget_ms: float) -> None:
        self._ttl_ms = max(1, round(ttl_s * 1e3))
        self._budget_s = budget_ms / 1e3
        try:
            # One try only: the budget is shorter than any pause before another.
            self._redis: Any = redis.Redis.from_url(
                url, retry=None, socket_connect_timeout=1.0, socket_timeout=_LONGEST_S
            )
        except ValueError as error:
            raise NoRedis(
                f"{url!r} is no address of a Redis ({error}).", hint="Write redis://HOST:PORT/0."
            ) from error
        self._breaker = Breaker()
        self._writes: set[asyncio.Task[None]] = set()
        self.failures = 0
        self.dropped_writes = 0

    @property
    def resting(self) -> bool:
        """Whether Redis is left alone now."""
        return self._breaker.open

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Shared]:
        """What is there of *keys*; nothing when Redis fails or takes longer than the budget."""
        values = await self._try(self._redis.mget([_PREFIX + key for key in keys]))
        pairs = zip(keys, values or (), strict=False)
        found = ((key, self._believed(key, value)) for key, value in pairs if value)
        return {key: shared for key, shared in found if shared}

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Write in the background; when too much is being written already, not at all."""
        if len(self._writes) >= _WRITES_AT_ONCE:
            self.dropped_writes += 1
            return
        task = asyncio.get_running_loop().create_task(self._write(dict(rows)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def clear(self) -> int:
        """Remove all of ours, and say how many. Raises `RedisUnreachable`."""
        removed = 0
        try:
            async for key in self._redis.scan_iter(match=_PREFIX + b"*", count=_CLEAR_COUNT):
                removed += int(await self._redis.unlink(key))
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnreachable(
                "Redis does not answer, so what it knows cannot be forgotten.",
                hint="Try again when it is back.",
            ) from error
        return removed

    async def settled(self) -> None:
        """Once everything is written, or given up."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def close(self) -> None:
        """Write what is to be written, and close the connections."""
        await self.settled()
        await self._redis.aclose()

    async def _write(self, rows: Mapping[bytes, bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        stamp = _STAMP.pack(_now_ms())
        for key, row in rows.items():
            value = row + stamp
            pipeline.set(_PREFIX + key, value + _check(key, value), px=self._ttl_ms)
        await self._try(pipeline.execute(), budget_s=1.0)  # nobody waits for it

    def _believed(self, key: bytes, value: bytes) -> Shared | None:
        """None for what is not ours, or too old; a writer whose clock is ahead gains nothing by it."""
        value, check = value[:-_CHECK_BYTES], value[-_CHECK_BYTES:]
        if len(value) < _STAMP.size or check != _check(key, value):
            return None
        (computed_ms,) = _STAMP.unpack(value[-_STAMP.size :])
        left_ms = min(self._ttl_ms, computed_ms + self._ttl_ms - _now_ms())
        return Shared(row=value[: -_STAMP.size], left_s=left_ms / 1e3) if left_ms > 0 else None

    async def _try(self, asking: Any, *, budget_s: float | None = None) -> Any:
        """The outcome, or None; tells the breaker."""
        if not self._breaker.allows(time.monotonic()):
            asking.close()
            return None
        try:
            async with asyncio.timeout(budget_s or self._budget_s):
                outcome = await asking
        except (RedisError, OSError, TimeoutError, RuntimeError):
            # RuntimeError: what uvloop says of a connection that the network has torn down.
            self.failures += 1
            self._breaker.failed(time.monotonic())
            return None
        self._breaker.succeeded()
        return outcome


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=_CHECK_BYTES).digest()


def _now_ms() -> int:
    return round(time.time() * 1e3)
