"""Which candidate is served, by rule. Pure: verdicts and speeds in, names out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from export.options import Objective

# Less than that is no difference worth a byte; more than that is one, however noisy the machine.
_TIE, _CLEAR = 0.05, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What the choice is made by.

    low, high: texts/s of its slowest and fastest round. bit_equal: whether company changes no bit of
    its answers.
    """

    name: str
    texts_per_s: float
    low: float
    high: float
    latency_ms: float
    model_bytes: int
    bit_equal: bool


def ranked(contenders: Sequence[Contender], objective: Objective) -> list[str]:
    """Names from the best to the worst by *objective*, before any gate.

    Whoever is within 5 % of the best ties with it, and, in speed, whoever was in one round as fast as
    the best was in another, up to 25 %: what else the machine did may be all the difference. Of those
    that tie, the one whose answers do not depend on company at all comes first, then the smallest,
    then the fastest.
    """
    cost: dict[Objective, Callable[[Contender], float]] = {
        "throughput": lambda one: 1 / one.texts_per_s,
        "latency": lambda one: one.latency_ms,
        "size": lambda one: one.model_bytes,
    }
    left, order = list(contenders), []
    while left:
        best = min(left, key=cost[objective])

        def ties(one: Contender, best: Contender = best) -> bool:
            behind = cost[objective](one) / cost[objective](best) - 1
            unproven = objective != "size" and one.high >= best.low
            return behind <= (_CLEAR if unproven else _TIE)

        tied = [one for one in left if ties(one)]
        first = min(tied, key=lambda one: (not one.bit_equal, one.model_bytes, -one.texts_per_s))
        order.append(first.name)
        left.remove(first)
    return order


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the points that no other beats or equals in everything and beats in something.

    Each coordinate is better when smaller.
    """

    def beaten(name: str) -> bool:
        return any(
            all(a <= b for a, b in zip(other, points[name], strict=True))
            and tuple(other) != tuple(points[name])
            for other in points.values()
        )

    return [name for name in points if not beaten(name)]
