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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Wanted:
    """One distinct text of a call: where it stands, and its answer once there is one."""

    encoding: Encoding
    places: list[int] = field(default_factory=list)
    answer: Answer | None = None


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
        wanted = self._distinct(encodings)
        if not fresh:
            self._from_memory(wanted)
            if self._shared and any(_open(wanted)):
                await self._from_shared(self._shared, wanted)
        while any(_open(wanted)):
            await self._compute_or_join(wanted, due_s, priority, fresh=fresh)
        by_place = {place: one.answer for one in wanted.values() for place in one.places}
        answers = [by_place[place] for place in range(len(encodings))]
        return [answer for answer in answers if answer is not None]  # none is: nothing is open

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

    def _distinct(self, encodings: Sequence[Encoding]) -> dict[bytes, _Wanted]:
        wanted: dict[bytes, _Wanted] = {}
        for place, encoding in enumerate(encodings):
            wanted.setdefault(self._key(encoding), _Wanted(encoding)).places.append(place)
        return wanted

    def _key(self, encoding: Encoding) -> bytes:
        digest = hashlib.blake2b(self._salt, digest_size=_KEY_BYTES)
        digest.update(array("q", encoding.ids))
        digest.update(array("q", encoding.type_ids))
        return digest.digest()

    def _from_memory(self, wanted: dict[bytes, _Wanted]) -> None:
        now_s = time.monotonic()
        for key, one in _open(wanted):
            value = self._memory.get(key)
            if value and now_s < _UNTIL_S.unpack_from(value, self._row_bytes)[0]:
                one.answer = self._known(value)
                self.tally.memory += len(one.places)

    async def _from_shared(self, shared: SharedCache, wanted: dict[bytes, _Wanted]) -> None:
        for key, found in (await shared.get([key for key, _ in _open(wanted)])).items():
            if len(found.row) == self._row_bytes:
                wanted[key].answer = self._known(found.row)
                self._keep(key, found.row, found.left_s)
                self.tally.redis += len(wanted[key].places)

    async def _compute_or_join(
        self, wanted: dict[bytes, _Wanted], due_s: float, priority: Priority, *, fresh: bool
    ) -> None:
        """Compute what nobody computes, then take what others did; some may be open still."""
        mine: dict[bytes, _Wanted] = {}
        others: dict[bytes, asyncio.Future[Answer | None]] = {}
        for key, one in _open(wanted):
            flight = None if fresh else self._flights.get((key, priority))
            if flight is None:
                mine[key] = one
            else:
                others[key] = flight
        if mine:
            await self._compute(mine, due_s, priority)
        for key, flight in others.items():
            # Of who leads the flight the caller may leave, or the deadline come, before ours.
            done, _ = await asyncio.wait([flight], timeout=_left_s(due_s))
            if not done:
                raise DeadlineExceeded("Not answered in time: an equal text is being computed.")
            if answer := flight.result():
                wanted[key].answer = answer
                self.tally.joined += len(wanted[key].places)

    async def _compute(self, mine: dict[bytes, _Wanted], due_s: float, priority: Priority) -> None:
        loop = asyncio.get_running_loop()
        flights = {key: loop.create_future() for key in mine}
        self._flights.update({(key, priority): flight for key, flight in flights.items()})
        try:
            answers = await self._batcher.answer(
                [one.encoding for one in mine.values()],
                within_ms=(due_s - time.perf_counter()) * 1e3,
                priority=priority,
            )
            for (key, one), answer in zip(mine.items(), answers, strict=True):
                one.answer = answer
                self.tally.missed += len(one.places)
                flights[key].set_result(answer)
        finally:
            for key, flight in flights.items():
                if self._flights.get((key, priority)) is flight:
                    del self._flights[key, priority]
                if not flight.done():
                    flight.set_result(None)  # whoever waits for it computes it himself
        rows = {key: one.answer.logits.tobytes() for key, one in mine.items() if one.answer}
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


def _open(wanted: dict[bytes, _Wanted]) -> Iterator[tuple[bytes, _Wanted]]:
    return ((key, one) for key, one in wanted.items() if one.answer is None)


def _left_s(due_s: float) -> float | None:
    return None if due_s == math.inf else max(0.0, due_s - time.perf_counter())
