"""How much a key may ask: texts a second and texts a day, counted in memory or in Redis.

With several replicas only Redis counts for all of them. While it does not answer, each counts for
itself: no request fails for Redis's sake.
"""

from __future__ import annotations

import asyncio
import time

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.exceptions import RedisError

from serving.access.keys import Key
from serving.caching.breaker import Breaker
from serving.errors import QuotaUsedUp, RateLimited, ServingError, TooLarge

_NAMESPACE = "miniml-limits"
# Of one count, with all that a busy event loop adds: given up too soon, a limit would not be exact.
_REDIS_BUDGET_S = 1.0


class Meter:
    """Counts texts by key. redis_url: for all replicas; else for this process."""

    def __init__(self, redis_url: str | None = None) -> None:
        self._here = _Windows(MemoryStorage())
        self._shared: _Windows | None = None
        if redis_url:
            # One try only: the budget is shorter than any pause before another.
            storage = RedisStorage(
                f"async+{redis_url}",
                implementation="redispy",
                retry=None,  # type: ignore[arg-type] # handed to Redis's client, which takes it
            )
            self._shared = _Windows(storage)
        self._breaker = Breaker()
        self._turn = asyncio.Lock()

    async def take(self, key: Key, texts: int) -> None:
        """Count *texts* for *key*, or none of them.

        Raises `RateLimited` or `QuotaUsedUp`, with when to ask again; `TooLarge` where it would never
        pass.
        """
        async with self._turn:  # else a call that is refused could have others refused meanwhile
            if not (self._shared and await self._counted(self._shared, key, texts)):
                await self._here.take(key, texts)

    async def _counted(self, shared: _Windows, key: Key, texts: int) -> bool:
        """Whether Redis counted; false when it is left alone, fails or is late."""
        if not self._breaker.allows(time.monotonic()):
            return False
        try:
            async with asyncio.timeout(_REDIS_BUDGET_S):
                await shared.take(key, texts)
        except (RedisError, OSError, TimeoutError, RuntimeError):  # the last as in `shared_cache`
            self._breaker.failed(time.monotonic())
            return False
        except ServingError:
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return True


class _Windows:
    """The windows of all keys in one storage."""

    def __init__(self, storage: MemoryStorage | RedisStorage) -> None:
        self._storage = storage
        self._windows = FixedWindowRateLimiter(storage)

    async def take(self, key: Key, texts: int) -> None:
        """As `Meter.take`."""
        if key.texts_per_s:
            second = RateLimitItemPerSecond(key.texts_per_s, namespace=_NAMESPACE)
            if texts > key.texts_per_s:
                raise TooLarge(
                    f"The call has {texts} texts; this key may ask {key.texts_per_s} a second.",
                    hint="Send several smaller calls.",
                )
            if not await self._counts(second, key, texts):
                raise RateLimited(
                    f"This key may ask {key.texts_per_s} texts a second.",
                    retry_after_s=1.0,
                    hint="Retry after the time in the Retry-After header.",
                )
        if key.texts_per_day:
            day = RateLimitItemPerDay(key.texts_per_day, namespace=_NAMESPACE)
            if not await self._counts(day, key, texts):
                left = await self._windows.get_window_stats(day, key.id)
                raise QuotaUsedUp(
                    f"{left.remaining} of this key's {key.texts_per_day} texts a day are left,"
                    f" and the call has {texts}.",
                    retry_after_s=max(1.0, left.reset_time - time.time()),
                )

    async def _counts(self, item: RateLimitItem, key: Key, texts: int) -> bool:
        if await self._windows.hit(item, key.id, cost=texts):
            return True
        # What is refused is not counted.
        await self._storage.incr(item.key_for(key.id), item.get_expiry(), amount=-texts)
        return False
