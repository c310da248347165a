"""How a client talks to a server that may be busy: what to send, when to pause, when to give up.

Does no I/O, so that a client that blocks and one that awaits share every decision.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx

from serving.errors import ServingError

URL_HINT = "Give the address that `miniml serve` printed, as in http://127.0.0.1:8000."
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_TRY_AGAIN = (429, 502, 503)
Outcome = httpx.Response | httpx.HTTPError
Body = dict[str, Any]


class RemoteError(ServingError):
    """The server answered with an error, or not at all."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, then go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """The conversation's answer."""

    answer: Any


Conversation = Generator[Body | Pause, Outcome | None, Any]


def go_on(conversation: Conversation, outcome: Outcome | None) -> Body | Pause | Done:
    """What is next, told the *outcome* of the body before, if that was one. Raises `RemoteError`."""
    try:
        return conversation.send(outcome)
    except StopIteration as end:
        return Done(end.value)


def converse(url: str, body: Body, *, tries: int, known: bool = True) -> Conversation:
    """What to send, and how long to pause, until there is an answer, which is returned.

    Does no I/O: it is told the outcome of each body that it yields. known: somebody answered there
    before; else a connection that fails is a wrong address. Raises `RemoteError`.
    """
    for attempt in range(tries):
        outcome = yield body
        assert outcome is not None, "a body without an outcome; this is a bug"
        if isinstance(outcome, httpx.Response) and outcome.status_code == httpx.codes.OK:
            return _json(outcome)
        known = known or isinstance(outcome, httpx.Response)
        if attempt + 1 == tries or not known or not _may_pass(outcome):
            raise _error(url, outcome)
        yield Pause(_pause_s(outcome, attempt))
    raise AssertionError("no try at all; this is a bug")


def _may_pass(outcome: Outcome) -> bool:
    """Whether asking again may help; a call that took too long would only be run twice."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _TRY_AGAIN
    return not isinstance(outcome, httpx.TimeoutException | httpx.UnsupportedProtocol)


def _pause_s(outcome: Outcome, attempt: int) -> float:
    """What the server says, or twice as long each time; somewhat longer, so that not all come back."""
    told = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    base_s = float(told) if told.isdigit() else _FIRST_PAUSE_S * 2**attempt
    return min(base_s, _LONGEST_PAUSE_S) * random.uniform(1.0, 1.5)  # noqa: S311 - not a secret


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise RemoteError(f"{response.url} answered, but not with JSON.", hint=URL_HINT) from error


def _error(url: str, outcome: Outcome) -> RemoteError:
    if not isinstance(outcome, httpx.Response):
        return RemoteError(
            f"No answer from {url} ({outcome}).", hint="Is `miniml serve` running there?"
        )
    try:
        detail = outcome.json()["error"]
        return RemoteError(str(detail["message"]), hint=str(detail["hint"]))
    except (ValueError, KeyError, TypeError):
        return RemoteError(f"{outcome.url} answered with status {outcome.status_code}.")
