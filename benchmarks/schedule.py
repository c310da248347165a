"""When the requests of an open loop are due, and how many users a closed loop has. Pure.

A load rises by its shape: "steady" is at its level from the start, "ramp" rises to it in a line,
"steps" in five equal steps. The warm-up is at the first level.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Arrivals = Literal["poisson", "constant"]
Shape = Literal["steady", "ramp", "steps"]
STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of time and its level (requests a second, or users), at its begin and at its end."""

    begin_s: float
    end_s: float
    first: float
    last: float

    @property
    def area(self) -> float:
        """Level times time."""
        return (self.first + self.last) / 2 * (self.end_s - self.begin_s)

    def at(self, share: float) -> float:
        """The time by which *share* of the area has passed."""
        length_s = self.end_s - self.begin_s
        if self.first == self.last:
            return self.begin_s + share * length_s
        level = math.sqrt(self.first**2 + share * (self.last**2 - self.first**2))
        return self.begin_s + length_s * (level - self.first) / (self.last - self.first)


def stages(shape: Shape, level: float, *, warmup_s: float, duration_s: float) -> list[Stage]:
    """The warm-up, if there is one, and what is measured."""
    end_s = warmup_s + duration_s
    first = level if shape == "steady" else level / STEPS
    found = [Stage(begin_s=0.0, end_s=warmup_s, first=first, last=first)] if warmup_s > 0 else []
    if shape != "steps":
        return [*found, Stage(begin_s=warmup_s, end_s=end_s, first=first, last=level)]
    edges = [warmup_s + duration_s * step / STEPS for step in range(STEPS + 1)]
    return found + [
        Stage(begin_s=begin, end_s=end, first=first * step, last=first * step)
        for step, (begin, end) in enumerate(pairwise(edges), start=1)
    ]


def level_at(found: list[Stage], at_s: float) -> float:
    """The level at *at_s*; the last one afterwards."""
    for stage in found:
        if at_s < stage.end_s:
            share = (at_s - stage.begin_s) / (stage.end_s - stage.begin_s)
            return stage.first + share * (stage.last - stage.first)
    return found[-1].last


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """An open loop: equal schedules are due at equal times."""

    rate_per_s: float
    warmup_s: float
    duration_s: float
    arrivals: Arrivals = "poisson"
    shape: Shape = "steady"
    seed: int = 0

    @property
    def stages(self) -> list[Stage]:
        """Rates by time."""
        return stages(
            self.shape, self.rate_per_s, warmup_s=self.warmup_s, duration_s=self.duration_s
        )

    def due_s(self) -> list[float]:
        """Seconds after the start at which each request is due, ascending.

        As many in each stage as its rate says, to the nearest whole. "constant" spaces them evenly;
        "poisson" is a Poisson process given that number: left to chance, 100 requests would be 90
        or 110, and two seeds another load.
        """
        return list(self._due_s())

    def _due_s(self) -> Iterator[float]:
        chance = random.Random(self.seed)  # noqa: S311 - a workload, not a secret
        area, sent = 0.0, 0
        for stage in self.stages:
            area += stage.area
            count = round(area) - sent
            sent += count
            if self.arrivals == "constant":
                shares = [(place + 0.5) / count for place in range(count)]
            else:
                shares = sorted(chance.random() for _ in range(count))
            yield from map(stage.at, shares)
