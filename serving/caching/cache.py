"""Answers kept: the same token ids to the same package give the same bits, so they need no second run.

Before the queue, per text: first this process's memory, then Redis when there is one, then whoever
computes the same text right now, and only then the lanes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import struct
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cachetools import TTLCache

from serving.encoding import Encoding, Logits
from serving.errors import DeadlineExceeded
from serving.line import Priority
from serving.work import Answer

if TYPE_CHECKING:  # Redis's client takes memory that only those pay who use it
    from serving.caching.shared_cache import SharedCache

_KEY_BYTES = 16
_UNTIL_S = struct.Struct(
    "<d"
)  # behind a row in memory: until when it is known, by the monotonic clock
# Of one entry beside its value, by tracemalloc over 20,000 of them: key, objects, slots and links.
_ENTRY_BYTES = 336
# Of texts known: below, refusing before reading spares more than it costs.
_WORTH = 0.05


class Asks(Protocol):
    """What `serving.batcher.Batcher` does."""

    async def answer(
        self, encodings: Sequence[Encoding], *, within_ms: float, priority: Priority
    ) -> list[Answer]:
        """One answer an encoding, in order."""
        ...


@dataclass(slots=True)
class CacheTally:
    """Texts since the start: found in memory, in Redis, computed for another just then, and not."""

    memory: int = 0
    redis: int = 0
    joined: int = 0
    missed: int = 0


class _Call:
    """What one call wants: its distinct texts by their keys, and the answers that there are so far."""

    __slots__ = ("_times", "answers", "encodings")

    def __init__(self, keys: Sequence[bytes], encodings: Sequence[Encoding]) -> None:
        self.encodings = dict(zip(keys, encodings, strict=True))
        self.answers: dict[bytes, Answer] = {}
        self._times = Counter(keys) if len(self.encodings) < len(keys) else None

    def open(self) -> list[bytes]:
        """Keys of what has no answer."""
        return [key for key in self.encodings if key not in self.answers]

    def take(self, key: bytes, answer: Answer) -> int:
        """It is *answer*; how often it stands in the call."""
        self.answers[key] = answer
        return self._times[key] if self._times else 1


class Cache:
    """Asks *batcher* only for what is not known. max_bytes of memory, each entry for *ttl_s*."""

    def __init__(  # noqa: PLR0913 - whom it asks, for what, and its limits
        self,
        batcher: Asks,
        *,
        package_digest: str,
        labels: int,
        max_bytes: int,
        ttl_s: float,
        shared: SharedCache | None = None,
    ) -> None:
        self._batcher = batcher
        self._salt = bytes.fromhex(package_digest)
        self._row_bytes = 4 * labels
        self._memory: TTLCache[bytes, bytes] = TTLCache(
            *(max_bytes, ttl_s),
            timer=time.monotonic,
            getsizeof=lambda value: len(value) + _ENTRY_BYTES,
        )
        self._shared = shared
        self._flights: dict[tuple[bytes, Priority], asyncio.Future[Answer | None]] = {}
        self.tally = CacheTally()

    @property
    def pays(self) -> bool:
        """Whether enough of what is asked is known."""
        known = self.tally.memory + self.tally.redis + self.tally.joined
        return known > _WORTH * (known + self.tally.missed)

    def numbers(self) -> dict[str, float]:
        """Live numbers: answers in memory and what they take, and where texts' answers came from."""
        numbers: dict[str, float] = {
            "cache_entries": len(self._memory),
            "cache_bytes": int(self._memory.currsize),
            "cache_memory_hits": self.tally.memory,
            "cache_joined": self.tally.joined,
            "cache_misses": self.tally.missed,
        }
        if self._shared:
            numbers["cache_redis_hits"] = self.tally.redis
            numbers["cache_redis_failures"] = self._shared.failures
            numbers["cache_redis_dropped_writes"] = self._shared.dropped_writes
            numbers["cache_redis_resting"] = int(self._shared.resting)
        return numbers

    async def answer(
        self,
        encodings: Sequence[Encoding],
        *,
        within_ms: float = math.inf,
        priority: Priority = "interactive",
        fresh: bool = False,
    ) -> list[Answer]:
        """One answer an encoding, in order, as `Batcher.answer`. fresh: computed now, and kept."""
        due_s = time.perf_counter() + within_ms / 1e3
        keys = [self._key(encoding) for encoding in encodings]
        call = _Call(keys, encodings)
        if not fresh:
            self._from_memory(call)
            if self._shared and (unknown := call.open()):
                await self._from_shared(self._shared, call, unknown)
        while wanted := call.open():
            await self._compute_or_join(call, wanted, due_s, priority, fresh=fresh)
        return [call.answers[key] for key in keys]

    async def clear(self) -> int:
        """Forget everything, here and in Redis; how many answers that were.

        Raises `RedisUnreachable`, and forgets nothing here: it would come back from there.
        """
        removed = await self._shared.clear() if self._shared else 0
        removed += len(self._memory)
        self._memory.clear()
        return removed

    async def close(self) -> None:
        """Write to Redis what is to be written, and forget what is known here."""
        self._memory.clear()
        if self._shared:
            await self._shared.close()

    def _key(self, encoding: Encoding) -> bytes:
        digest = hashlib.blake2b(self._salt, digest_size=_KEY_BYTES)
        digest.update(array("q", encoding.ids))
        digest.update(array("q", encoding.type_ids))
        return digest.digest()

    def _from_memory(self, call: _Call) -> None:
        now_s = time.monotonic()
        for key in call.encodings:
            value = self._memory.get(key)
            if value and now_s < _UNTIL_S.unpack_from(value, self._row_bytes)[0]:
                self.tally.memory += call.take(key, self._known(value))

    async def _from_shared(self, shared: SharedCache, call: _Call, keys: Sequence[bytes]) -> None:
        for key, found in (await shared.get(keys)).items():
            if len(found.row) == self._row_bytes:
                self._keep(key, found.row, found.left_s)
                self.tally.redis += call.take(key, self._known(found.row))

    async def _compute_or_join(
        self, call: _Call, keys: Sequence[bytes], due_s: float, priority: Priority, *, fresh: bool
    ) -> None:
        """Compute what nobody computes, then take what others did; some may be open still."""
        mine: list[bytes] = []
        others: dict[bytes, asyncio.Future[Answer | None]] = {}
        for key in keys:
            flight = None if fresh else self._flights.get((key, priority))
            if flight is None:
                mine.append(key)
            else:
                others[key] = flight
        if mine:
            await self._compute(call, mine, due_s, priority)
        for key, flight in others.items():
            # Of who leads the flight the caller may leave, or the deadline come, before ours.
            done, _ = await asyncio.wait([flight], timeout=_left_s(due_s))
            if not done:
                raise DeadlineExceeded("Not answered in time: an equal text is being computed.")
            if answer := flight.result():
                self.tally.joined += call.take(key, answer)

    async def _compute(
        self, call: _Call, keys: Sequence[bytes], due_s: float, priority: Priority
    ) -> None:
        create_future = asyncio.get_running_loop().create_future
        flights = {(key, priority): create_future() for key in keys}
        self._flights.update(flights)
        try:
            answers = await self._batcher.answer(
                [call.encodings[key] for key in keys],
                within_ms=(due_s - time.perf_counter()) * 1e3,
                priority=priority,
            )
            for key, flight, answer in zip(keys, flights.values(), answers, strict=True):
                self.tally.missed += call.take(key, answer)
                flight.set_result(answer)
        finally:
            for place, flight in flights.items():
                if self._flights.get(place) is flight:
                    del self._flights[place]
                if not flight.done():
                    flight.set_result(None)  # whoever waits for it computes it himself
        rows = {key: call.answers[key].logits.tobytes() for key in keys}
        for key, row in rows.items():
            self._keep(key, row, self._memory.ttl)
        if self._shared:
            self._shared.put(rows)

    def _keep(self, key: bytes, row: bytes, left_s: float) -> None:
        """For so long at most: what another replica computed is not known here for longer."""
        value = row + _UNTIL_S.pack(time.monotonic() + left_s)
        if len(value) + _ENTRY_BYTES <= self._memory.maxsize:
            self._memory[key] = value

    def _known(self, value: bytes) -> Answer:
        logits: Logits = np.frombuffer(value, dtype=np.float32, count=self._row_bytes // 4)
        return Answer(logits=logits, queue_ms=0.0, infer_ms=0.0, cached=True)


def _left_s(due_s: float) -> float | None:
    return None if due_s == math.inf else max(0.0, due_s - time.perf_counter())
