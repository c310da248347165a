"""One request as those see it who count, log and trace it; it only holds values."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field

from serving.keys import Key
from serving.line import Priority

OTHER = "other"  # the door of what comes in at none: pages, unknown paths, wrong methods
_LONGEST_ID = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, from its first byte on. door: which it came through. id: as its caller knows it.

    key: whose it is; None where nobody is asked. fresh, within_ms, priority: as in `Core.ask`, where
    the texts themselves do not say otherwise. began_s: of `time.perf_counter`.
    """

    door: str
    id: str = ""
    key: Key | None = None
    fresh: bool = False
    within_ms: float = math.inf
    priority: Priority = "interactive"
    began_s: float = field(default_factory=time.perf_counter)


def id_for(given: bytes) -> bytes:
    """A request's id: the *given* one if it may stand in a log, or a new one."""
    if given and len(given) <= _LONGEST_ID and given.isascii():
        return given
    return str(uuid.uuid4()).encode()
