"""How much a key may ask: texts a second and texts a day, counted in memory or in Redis.

With several replicas only Redis counts for all of them.
"""

from __future__ import annotations

import asyncio
import time

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter

from serving.errors import QuotaUsedUp, RateLimited, TooLarge
from serving.keys import Key

_NAMESPACE = "miniml-limits"


class Meter:
    """Counts texts by key. redis_url: for all replicas; else for this process."""

    def __init__(self, redis_url: str | None = None) -> None:
        address = f"async+{redis_url}" if redis_url else ""
        self._storage = (
            RedisStorage(address, implementation="redispy") if address else (MemoryStorage())
        )
        self._windows = FixedWindowRateLimiter(self._storage)
        self._turn = asyncio.Lock()

    async def take(self, key: Key, texts: int) -> None:
        """Count *texts* for *key*, or none of them.

        Raises `RateLimited` or `QuotaUsedUp`, with when to ask again; `TooLarge` where it would never
        pass.
        """
        async with self._turn:  # else a call that is refused could have others refused meanwhile
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
