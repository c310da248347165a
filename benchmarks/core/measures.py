"""From what a run saw to what it means: shares, ratios and goals. Pure.

seen: name -> workload ("" where there is none) -> values, one a round, but for queue times, which
are of all requests of all rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.record import percentile

AllSeen = Mapping[str, Mapping[str, Sequence[float]]]
# Light load: beside the engine's own time, a share of it and a fixed part are allowed.
_LIGHT_TIMES = 1.15
_CEILING = "ceiling_batch_"
_USEFUL = "useful tokens, share at saturation"
_REFUSALS = "10 x overload, p99 of refusals, ms"
_NORMAL = "after 10 x overload, normal service, s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the table: values by round, and the goal of their median where there is one.

    at_most: whether the goal is an upper bound. No values: it could not be measured.
    """

    name: str
    workload: str
    values: tuple[float, ...]
    goal: float | None = None
    at_most: bool = False
    digits: int = 2

    @property
    def median(self) -> float | None:
        """Of the values."""
        return statistics.median(self.values) if self.values else None

    @property
    def held(self) -> bool | None:
        """Whether the median meets the goal; None without a goal or a value."""
        if self.goal is None or self.median is None:
            return None
        return self.median <= self.goal if self.at_most else self.median >= self.goal

    def document(self) -> dict[str, object]:
        """All of it, for JSON."""
        return {
            "name": self.name,
            "workload": self.workload,
            "values": list(self.values),
            "median": self.median,
            "goal": self.goal,
            "goal_is": "at most" if self.at_most else "at least",
            "held": self.held,
        }


def best_batch(seen: AllSeen, workload: str) -> int | None:
    """The bare engine's best batch size: the one whose rates have the highest median.

    One size for all rounds, since the best of each round would be luck as well as speed.
    """
    found = {
        int(name.removeprefix(_CEILING).partition("_")[0]): by_workload[workload]
        for name, by_workload in seen.items()
        if name.startswith(_CEILING) and by_workload.get(workload)
    }
    return max(found, key=lambda batch: statistics.median(found[batch]), default=None)


def ceiling(seen: AllSeen, workload: str) -> Sequence[float]:
    """The bare engine's rate in each round, at its best batch size so far: before and after the server's.

    Of a record without these, its rates when all sizes were tried.
    """
    before, after = (
        seen.get(f"engine_{when}_texts_per_s", {}).get(workload, ()) for when in ("before", "after")
    )
    if around := _pairs(before, after, lambda b, a: (b + a) / 2):
        return around
    batch = best_batch(seen, workload)
    return () if batch is None else seen[f"{_CEILING}{batch}_texts_per_s"][workload]


def derive(seen: AllSeen) -> tuple[Measure, ...]:
    """Every line of the table of whose part something was seen."""
    workloads = sorted({w for by_workload in seen.values() for w in by_workload if w}, reverse=True)
    lines = [line for workload in workloads for line in _of_workload(seen, workload)]
    # What the server may keep to itself, and what may not come, is missed, not left out.
    told = {"closed_texts_per_s": _USEFUL, "capacity_texts_per_s": _REFUSALS}
    told["light_after_p99_ms"] = _NORMAL
    missed = {name for part, name in told.items() if part in seen}
    return tuple(line for line in (*lines, *_of_server(seen)) if line.values or line.name in missed)


def _of_workload(seen: AllSeen, workload: str) -> list[Measure]:
    def of(name: str) -> Sequence[float]:
        return seen.get(name, {}).get(workload, ())

    top = ceiling(seen, workload)
    closed, calls = of("closed_texts_per_s"), of("calls_texts_per_s")
    goal = 0.65 if workload == "queries" else 0.90
    shares = [
        _line("bare engine, texts/s", workload, top, digits=1),
        _line("32 x 1 text, texts/s", workload, closed, digits=1),
        _line("32 x 1 text, share of the engine", workload, _shares(closed, top), goal=goal),
        _line("calls of 32 texts, texts/s", workload, calls, digits=1),
        _line("calls of 32 texts, share of the engine", workload, _shares(calls, top), goal=0.92),
        _most(
            "requests of both not answered with 200",
            workload,
            [*of("closed_errors"), *of("calls_errors")],
            goal=0,
            digits=0,
        ),
        _line("32 x 1 text, event loop late, p99 ms", workload, of("closed_loop_late_p99_ms")),
        _line("light load, p50 ms", workload, of("light_p50_ms")),
    ]
    return shares + _costs(of, workload)


def _costs(of: Callable[[str], Sequence[float]], workload: str) -> list[Measure]:
    """What a request pays beyond the engine: time when nobody else asks, padding, waiting, CPU."""
    queries = workload == "queries"
    light_ms = _pairs(of("light_p50_ms"), of("alone_median_ms"), lambda p, a: p - _LIGHT_TIMES * a)
    # What the server itself says that lanes and tokenizer took, of the same requests: cores that are
    # shared make both dearer. Else what the engine alone took, at another time.
    model_cpu_ms = of("model_cpu_ms") or of("engine_cpu_ms")
    overhead_ms = _pairs(of("server_cpu_ms"), model_cpu_ms, lambda s, m: s - m)
    return [
        _most("light load, p50 beyond 1.15 x the engine, ms", workload, light_ms, goal=1.5),
        _line(_USEFUL, workload, of("useful_token_ratio"), goal=None if queries else 0.95),
        _most(
            "80 % load, p99 queue time: longest tenth / rest",
            workload,
            _queue_ratio(of("queue_longest_tenth_ms"), of("queue_rest_ms")),
            goal=2.0,
        ),
        _most(
            "server CPU beyond the engine, ms a request",
            workload,
            overhead_ms,
            goal=0.5 if queries else None,
        ),
        _line("load client's CPU, ms a request", workload, of("client_cpu_ms"), digits=3),
    ]


def _of_server(seen: AllSeen) -> list[Measure]:
    def of(name: str) -> Sequence[float]:
        return seen.get(name, {}).get("", ())

    above_mb = _pairs(of("replica_mb"), of("model_mb"), lambda r, m: r - m)
    growth = _shares(of("memory_after_mb"), of("memory_before_mb"))
    goodput = _shares(of("goodput_texts_per_s"), of("capacity_texts_per_s"))
    texts = f"{of('exact_texts')[0]:.0f}" if of("exact_texts") else "2000"
    return [
        _most(f"wrong answers of {texts}", "", of("exact_wrong"), goal=0, digits=0),
        _line("10 x overload, goodput / capacity", "", goodput, goal=0.9),
        _most(_REFUSALS, "", of("refusal_p99_ms"), goal=50, digits=1),
        _most(
            "10 x overload, neither answered nor refused", "", of("overload_lost"), goal=0, digits=0
        ),
        _most(
            "10 x overload, refusals without Retry-After",
            "",
            of("refusals_without_retry_after"),
            goal=0,
            digits=0,
        ),
        _most(_NORMAL, "", of("recovery_s"), goal=5, digits=1),
        _line("10 x overload, event loop late, p99 ms", "", of("overload_loop_late_p99_ms")),
        _most("10 x overload, memory after / before", "", growth, goal=1.1),
        _most("replica's memory above the model, MB", "", above_mb, goal=150, digits=0),
        _most("start of the replica to ready, s", "", of("start_s"), goal=4),
    ]


def _line(
    name: str, workload: str, values: Sequence[float], *, goal: float | None = None, digits: int = 2
) -> Measure:
    return Measure(name=name, workload=workload, values=tuple(values), goal=goal, digits=digits)


def _most(
    name: str, workload: str, values: Sequence[float], *, goal: float | None, digits: int = 2
) -> Measure:
    return Measure(
        name=name, workload=workload, values=tuple(values), goal=goal, at_most=True, digits=digits
    )


def _pairs(
    first: Sequence[float], second: Sequence[float], combine: Callable[[float, float], float]
) -> list[float]:
    """Round by round; nothing when either was not measured."""
    return [combine(a, b) for a, b in zip(first, second, strict=False)]


def _shares(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return _pairs(first, second, lambda a, b: a / b)


def _queue_ratio(long_ms: Sequence[float], rest_ms: Sequence[float]) -> list[float]:
    """One value from all rounds: a round alone holds too few long texts for a p99."""
    if not long_ms or not rest_ms or percentile(rest_ms, 99) <= 0:
        return []
    return [percentile(long_ms, 99) / percentile(rest_ms, 99)]
