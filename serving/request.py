"""One request as those see it who count, log and trace it; it only holds values."""

from __future__ import annotations

import math
import random
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.access.keys import Key
from serving.line import Priority

OTHER = "other"  # the door of what comes in at none: pages, unknown paths, wrong methods
_LONGEST_ID = 128
# Seeded by the kernel once: `uuid.uuid4` asks it for every id, and lets go of the interpreter meanwhile.
_RANDOM = random.Random()  # noqa: S311 - ids are no secrets
if TYPE_CHECKING:  # for those who trace or compare; nobody else need know of it
    from serving.observing.spans import Place
    from serving.reading import Reading

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(slots=True)
class Trail:
    """What becomes known of a request on its way: its texts, once read; its place in a trace.

    reading: how much of the texts is read; None as long as nobody said.
    """

    texts: Sequence[str] = ()
    pairs: Sequence[str] | None = None
    reading: Reading | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, from its first byte on. door: which it came through. id: as its caller knows it.

    method, path: as they were asked. line: of a stream, from 1; 0: it is none. key: whose it is; None
    where nobody is asked. fresh, within_ms, priority: as in `Core.ask`, where the texts themselves do
    not say otherwise. traceparent, tracestate: the caller's, by W3C. began_s: of `time.perf_counter`.
    trail: each request has its own, a replaced one too.
    """

    door: str
    id: str = ""
    method: str = "POST"
    path: str = ""
    line: int = 0
    key: Key | None = None
    fresh: bool = False
    within_ms: float = math.inf
    priority: Priority = "interactive"
    traceparent: str = ""
    tracestate: str = ""
    began_s: float = field(default_factory=time.perf_counter)
    trail: Trail = field(init=False, compare=False, default_factory=Trail)

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it is part of, as far as is known: its own spans', or else its caller's."""
        place = self.trail.place
        if place is not None and place.sampled:
            return f"{place.context.trace_id:032x}"
        found = _TRACEPARENT.fullmatch(self.traceparent)
        return found[1] if found else None


def id_for(given: bytes) -> bytes:
    """A request's id: the *given* one if it may stand in a log, or a new one."""
    if given and len(given) <= _LONGEST_ID and given.isascii():
        return given
    return str(uuid.UUID(int=_RANDOM.getrandbits(128), version=4)).encode()
