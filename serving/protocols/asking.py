"""What every front door makes of a request, and what it owes: a way to write the answer.

A door reads bytes and writes bytes; it knows neither who asks nor how answers are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.core import Answered
from serving.errors import TooLarge, WrongInput
from serving.line import Priority
from serving.reading import CUT, Reading
from serving.settings import ServeSettings

JSON = b"application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A body to send, its type, and headers beyond those that every answer has."""

    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Texts to answer, and how."""

    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    reading: Reading = CUT
    within_ms: float = math.inf
    priority: Priority | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Asking):
    """And `write`, which says the answers as this door does."""

    write: Callable[[Answered], Written]


class Door(Protocol):
    """One protocol's way to ask."""

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """Raises `BadRequest`, saying which field and why. headers: names in lower case."""
        ...


def check_texts(
    texts: Sequence[str], field: str, *, limits: ServeSettings, single: bool = False
) -> None:
    """Raise `WrongInput` or `TooLarge` for an empty or too long text, and for too many of them.

    field: what the caller calls them; single: it is one text, not a list of one.
    """
    if not texts:
        raise WrongInput(f"{field} is empty; send at least one text.")
    if len(texts) > limits.max_texts:
        raise TooLarge(
            f"{field} holds {len(texts)} texts; the limit is {limits.max_texts} a call.",
            hint="Send several calls.",
        )
    for place, text in enumerate(texts):
        if not text or text.isspace():
            raise WrongInput(f"{_named(field, place, single)} is empty.")
        if len(text) > limits.max_text_chars:
            raise TooLarge(
                f"{_named(field, place, single)} has {len(text)} characters; the limit is"
                f" {limits.max_text_chars}.",
                hint="Send the part that matters; the model reads only its first tokens anyway.",
            )


def _named(field: str, place: int, single: bool) -> str:
    return field if single else f"{field}[{place}]"
