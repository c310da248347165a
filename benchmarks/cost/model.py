"""What texts cost on instances of one type, and from which load another type is cheaper. Pure.

Rates and loads are in texts a second, money in dollars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_HOUR_S, _MILLION = 3600, 1e6
_MOST_INSTANCES = 10_000  # of a fleet that is looked at for a break-even


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Whole instances of one type, as many as a load needs.

    rate_per_s: of one, within the latency goal. used: share of it that is used on average; the rest
    is room for peaks. at_least: instances there are in any case.
    """

    usd_per_hour: float
    rate_per_s: float
    used: float
    at_least: int = 1

    @property
    def each_per_s(self) -> float:
        """The load that one instance takes."""
        return self.rate_per_s * self.used

    @property
    def full_usd(self) -> float:
        """A million texts, where every instance has all the load that it takes."""
        return self.usd_per_hour / _HOUR_S / self.each_per_s * _MILLION

    def instances(self, load_per_s: float) -> int:
        """How many a load needs."""
        return max(self.at_least, math.ceil(load_per_s / self.each_per_s))

    def hourly_usd(self, load_per_s: float) -> float:
        """What they cost an hour."""
        return self.instances(load_per_s) * self.usd_per_hour

    def usd_per_million(self, load_per_s: float) -> float:
        """A million texts at that load, which is above 0."""
        return self.hourly_usd(load_per_s) / _HOUR_S / load_per_s * _MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Loads above which another fleet costs less: for the first time, and from there on always."""

    first_per_s: float
    always_per_s: float


def rate_to_match(usd_per_hour: float, other: Fleet) -> float:
    """What an instance of that price must do to cost as much a text as *other*, both used as much."""
    return usd_per_hour / other.usd_per_hour * other.rate_per_s


def break_even(fleet: Fleet, other: Fleet) -> BreakEven | None:
    """From which load *other* costs less than *fleet*; None where it never does for good.

    So it is where *other* costs as much a text when both are full, or nearly so that only fleets
    beyond reason would tell. Whole instances may then still make it the cheaper one for a moment.
    """
    dear, cheap = (each.usd_per_hour / each.each_per_s for each in (fleet, other))
    if cheap >= dear:
        return None
    # Beyond, what a text costs less outweighs an instance of *other* that is just begun, and those
    # that it has without any load.
    horizon = max(1 / (dear - cheap), other.at_least / dear) * other.usd_per_hour
    edges = _edges((fleet, other), horizon)
    if edges is None:
        return None
    cheaper = [_cheaper_after(low, high, fleet, other) for low, high in pairwise(edges)]
    first = cheaper.index(True)
    last_dear = max((place for place, less in enumerate(cheaper) if not less), default=-1)
    return BreakEven(first_per_s=edges[first], always_per_s=edges[last_dear + 1])


def _cheaper_after(low: float, high: float, fleet: Fleet, other: Fleet) -> bool:
    """Whether *other* costs less between two loads, between which nobody needs another instance."""
    between = (low + high) / 2
    return other.hourly_usd(between) < fleet.hourly_usd(between)


def _edges(fleets: Sequence[Fleet], horizon: float) -> list[float] | None:
    """Loads at which either needs another instance, ascending from 0 to beyond *horizon*.

    None where they are too many to look at.
    """
    found = {0.0}
    for fleet in fleets:
        steps = math.ceil(horizon / fleet.each_per_s) + 2
        if steps > _MOST_INSTANCES:
            return None
        found.update(step * fleet.each_per_s for step in range(1, steps + 1))
    return sorted(found)
