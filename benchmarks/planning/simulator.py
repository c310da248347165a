"""Arrivals, lanes and callers as events in order of time: a replay of a load under a policy.

Pure: equal arguments give equal results; time is a number. Knows nothing of how a policy decides.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.planning.truth import Truth

# From a batch's end to the arrival of its callers' next texts, in a closed loop: the median caller.
TURNAROUND_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A text of *tokens* that comes at *arrived_s*."""

    arrived_s: float
    tokens: int


class Policy(Protocol):
    """Which texts run together, and when. Texts are named by their place among all arrivals."""

    def arrive(self, text: int, tokens: int, now_s: float) -> None:
        """A text has come."""
        ...

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:
        """What a free lane runs from now on; empty when it must wait. free_lanes: this one, too."""
        ...

    def ran(self, batch: int, longest: int, ms: float) -> None:
        """A batch of so many texts, padded to *longest* tokens, took *ms*."""
        ...

    def wakes_s(self) -> float:
        """When it wants to be woken though nothing happens; infinite when never."""
        ...

    def wake(self, now_s: float) -> None:
        """The time it asked for has come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What happened to each text, by its place: when it came, ms it waited, ms its batch ran.

    batches: how many were run. useful_tokens, padded_tokens: of all batches, without and with
    padding.
    """

    arrived_s: tuple[float, ...]
    queue_ms: tuple[float, ...]
    batch_ms: tuple[float, ...]
    batches: int
    useful_tokens: int
    padded_tokens: int


def replay(arrivals: Sequence[Arrival], policy: Policy, truth: Truth, *, lanes: int) -> Replay:
    """An open loop: every text comes when it comes. *arrivals* ascend in time."""
    events = _Events(arrivals, policy, truth, lanes)
    for text, arrival in enumerate(arrivals):
        events.put(arrival.arrived_s, text)
    return events.run()


def replay_closed(  # noqa: PLR0913 - the settings of a load, all by name
    arrivals: Sequence[Arrival],
    policy: Policy,
    truth: Truth,
    *,
    lanes: int,
    callers: int,
    seed: int = 0,
) -> Replay:
    """A closed loop: each caller sends the next text when it has its answer; their times are unused."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    events = _Events(arrivals, policy, truth, lanes)
    following = iter(range(len(arrivals)))

    def send(now_s: float, count: int) -> None:
        for text in itertools.islice(following, count):
            events.put(now_s + chance.expovariate(math.log(2) / TURNAROUND_S), text)

    events.answered = send
    send(0.0, callers)
    return events.run()


def _nobody_answers(now_s: float, count: int) -> None:
    """An open loop: an answer brings no further text."""


class _Batch:
    """A batch on a lane."""

    __slots__ = ("longest", "ms", "texts")

    def __init__(self, texts: list[int], longest: int, ms: float) -> None:
        self.texts, self.longest, self.ms = texts, longest, ms


class _Events:
    """What is going to happen, in order of time, and what has happened."""

    def __init__(
        self, arrivals: Sequence[Arrival], policy: Policy, truth: Truth, lanes: int
    ) -> None:
        self._tokens = [arrival.tokens for arrival in arrivals]
        self._policy, self._truth, self._free = policy, truth, lanes
        self._heap: list[tuple[float, int, int | _Batch | None]] = []
        self._order = itertools.count()
        self._wakes_s = math.inf
        self._arrived_s = [math.nan] * len(arrivals)
        self._queue_ms, self._batch_ms = list(self._arrived_s), list(self._arrived_s)
        self._batches = self._useful = self._padded = 0
        self.answered: Callable[[float, int], None] = _nobody_answers

    def put(self, at_s: float, event: int | _Batch | None) -> None:
        """A text arrives, a batch ends, or (None) the policy wants to be woken."""
        heapq.heappush(self._heap, (at_s, next(self._order), event))

    def run(self) -> Replay:
        """Until nothing is left to happen."""
        while self._heap:
            now_s, _, event = heapq.heappop(self._heap)
            if isinstance(event, int):
                self._arrived_s[event] = now_s
                self._policy.arrive(event, self._tokens[event], now_s)
            elif event:
                self._free += 1
                self._policy.ran(len(event.texts), event.longest, event.ms)
            else:
                self._wakes_s = math.inf
                self._policy.wake(now_s)
            self._start(now_s)
            if isinstance(event, _Batch):  # the lane goes on before its callers hear of it
                self.answered(now_s, len(event.texts))
            self._set_alarm()
        lost = sum(map(math.isnan, self._queue_ms))
        assert not lost, f"the policy never ran {lost} text(s); this is a bug"
        return Replay(
            arrived_s=tuple(self._arrived_s),
            queue_ms=tuple(self._queue_ms),
            batch_ms=tuple(self._batch_ms),
            batches=self._batches,
            useful_tokens=self._useful,
            padded_tokens=self._padded,
        )

    def _start(self, now_s: float) -> None:
        while self._free and (texts := self._policy.next_batch(now_s, self._free)):
            longest = max(self._tokens[text] for text in texts)
            ms = self._truth.draw_ms(len(texts), longest)
            for text in texts:
                assert math.isnan(self._queue_ms[text]), "a text ran twice; this is a bug"
                self._queue_ms[text] = (now_s - self._arrived_s[text]) * 1e3
                self._batch_ms[text] = ms
            self._free -= 1
            self._batches += 1
            self._useful += sum(self._tokens[text] for text in texts)
            self._padded += len(texts) * longest
            self.put(now_s + ms / 1e3, _Batch(texts, longest, ms))

    def _set_alarm(self) -> None:
        if (wakes_s := self._policy.wakes_s()) < self._wakes_s:
            self._wakes_s = wakes_s
            self.put(wakes_s, None)
