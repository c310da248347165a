"""Numbers as the report writes them; what is not there is an empty cell."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float | None, digits: int) -> str:
    """With commas for thousands."""
    return "" if value is None else f"{value:,.{digits}f}"


def counted(count: float, noun: str) -> str:
    """`1 text`, `2 texts`."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def a_call(texts: int) -> str:
    """`, 32 texts a call`; nothing when it is one."""
    return "" if texts == 1 else f", {texts} texts a call"


def span(values: Sequence[float], digits: int) -> str:
    """From the least to the most; empty when there is only one."""
    if len(values) < 2:  # noqa: PLR2004 - one value spans nothing
        return ""
    return f"{number(min(values), digits)} to {number(max(values), digits)}"


def percent_share(share: float | None) -> str:
    """0..1 as percent."""
    return "" if share is None else f"{100 * share:.2f} %"


def dollars(usd_per_hour: float, rate_per_s: float | None) -> str:
    """What a million texts cost at *rate_per_s* on a machine of that price."""
    return f"{usd_per_hour / 3600 / rate_per_s * 1e6:.2f}" if rate_per_s else ""
