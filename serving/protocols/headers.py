"""What goes beside a request and its answer, in HTTP's headers and in gRPC's metadata alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

from serving.core import Answered
from serving.errors import ServingError, Unauthenticated, Unavailable, WrongInput, WrongMethod
from serving.line import HANDICAP_S, Priority

Headers = list[tuple[bytes, bytes]]
_DEADLINE, _PRIORITY, _ID = b"x-deadline-ms", b"x-priority", b"x-request-id"
PARENT, STATE = b"traceparent", b"tracestate"  # of a trace, as W3C has them


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """As its caller knows the request; empty where the caller does not say."""
    return said(headers, _ID)


def said(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """What stands under *name*; empty without it."""
    return headers.get(name, b"").decode("latin-1")


class Wishes(TypedDict):
    """Fields of a `Request` that stand in headers."""

    fresh: bool
    within_ms: float
    priority: Priority


def wishes(headers: Mapping[bytes, bytes]) -> Wishes:
    """How a request wants to be answered. Raises `WrongInput`."""
    return {
        "fresh": wants_fresh(headers),
        "within_ms": within_ms(headers),
        "priority": priority(headers),
    }


def wants_fresh(headers: Mapping[bytes, bytes]) -> bool:
    """Whether answers must be computed now, though they may be known."""
    return b"no-cache" in headers.get(b"cache-control", b"")


def within_ms(headers: Mapping[bytes, bytes]) -> float:
    """Milliseconds the caller will wait; infinite where it does not say. Raises `WrongInput`."""
    if (value := headers.get(_DEADLINE)) is None:
        return math.inf
    try:
        told_ms = float(value)
    except ValueError:
        told_ms = math.nan
    if not told_ms > 0:  # NaN, too
        raise WrongInput(f"{_DEADLINE.decode()} must be a number of milliseconds above 0.")
    return told_ms


def priority(headers: Mapping[bytes, bytes]) -> Priority:
    """Who goes first when texts wait; interactive where nobody says. Raises `WrongInput`."""
    if (value := headers.get(_PRIORITY)) is None:
        return "interactive"
    for known in HANDICAP_S:
        if value == known.encode():
            return known
    raise WrongInput(f"{_PRIORITY.decode()} must be one of {', '.join(HANDICAP_S)}.")


def about_answer(digest: bytes, answered: Answered) -> Headers:
    """Which package answered, whether it knew, and where the time went."""
    return [
        (b"x-package-digest", digest),
        (b"x-cache", _cache_word(answered)),
        (b"x-tokenize-ms", b"%.3f" % answered.tokenize_ms),
        (b"x-queue-ms", b"%.3f" % answered.queue_ms),
        (b"x-infer-ms", b"%.3f" % answered.infer_ms),
    ]


def about_error(error: ServingError) -> Headers:
    """When to come again, and how to come in."""
    if isinstance(error, Unavailable):
        return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, WrongMethod):
        return [(b"allow", error.allow.encode())]
    return []


def _cache_word(answered: Answered) -> bytes:
    if not answered.cached:
        return b"miss"
    return b"hit" if answered.cached == len(answered.answers) else b"partial"
