"""JSON bodies into typed values: the types that are read are those that the contract shows."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from serving.errors import MalformedBody, WrongInput

T = TypeVar("T")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes, *, hint: str = "") -> T:
    """*body* as the decoder's type. Raises `MalformedBody` or `WrongInput`, naming the place."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise WrongInput(_sentence(str(error)), hint=hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.", hint=hint) from error


def _sentence(told: str) -> str:
    """`Expected `str`, got `int` - at `$.texts[1]`` with the place first."""
    problem, found, place = told.partition(" - at `$")
    if not found:
        return f"The body: {problem}."
    return f"{place.rstrip('`').lstrip('.')}: {problem}."
