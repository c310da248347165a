"""Amounts as people write them on a command line: `2m`, `90s`, `10%`."""

from __future__ import annotations

import math
import re

from serving.errors import ServingError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")


class NoAmount(ServingError):
    """What was written is no such amount."""


def seconds(text: str, *, flag: str) -> float:
    """`90`, `90s`, `2m` or `1h` in seconds. flag: which option says so. Raises `NoAmount`."""
    found = _TIME.fullmatch(text.strip().lower())
    if found is None:
        raise NoAmount(f"{flag} is {text!r}; write a time as 90s, 2m or 1h.")
    return float(found[1]) * _SECONDS[found[2]]


def share(text: str, *, flag: str) -> float:
    """`10%` or `0.1`, from 0 to 1. Raises `NoAmount`."""
    written = text.strip()
    try:
        value = float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise NoAmount(f"{flag} is {text!r}; write a share as 10% or 0.1.")
    return value
