"""One rate, tried: an open loop of a few seconds, and whether the goal held in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.bisection import Tried
from benchmarks.bottleneck import rate_fault
from benchmarks.load.record import run_document, status_name, summary
from benchmarks.locusts.driving import LocustLoad, locust_loop
from benchmarks.schedule import Schedule
from benchmarks.watching import watching
from benchmarks.wire import CONNECTIONS, Body, WireRun, scheduled_loop

_LEAST_REQUESTS = 200  # else the 99th percentile is one request's luck
_MOST_TIMES = 4
_LEAST_DRAIN_S = 2.0
_LOCUST_USERS = 256
Role = Literal["search", "curve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """p99_ms at most, no error, and the whole rate sent."""

    p99_ms: float

    def miss(self, run: WireRun, rate_per_s: float) -> str:
        """How *run* misses it; empty when it holds."""
        if run.errors:
            told = ", ".join(f"{n} x {status_name(status)}" for status, n in run.errors.items())
            return f"errors: {told}"
        if not run.latencies_ms:
            return "nothing was sent"
        if (p99_ms := run.percentile_ms(99)) > self.p99_ms:
            return f"p99 {p99_ms:.1f} ms"
        return rate_fault(run, rate_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SloTrial:
    """One trial. miss: of the goal, empty when it held. role: a curve's trial decides nothing."""

    rate_per_s: float
    seed: int
    role: Role
    run: WireRun
    miss: str

    @property
    def tried(self) -> Tried:
        """What the search needs of it."""
        return Tried(rate_per_s=self.rate_per_s, held=not self.miss)

    def document(self) -> dict[str, Any]:
        """All of it."""
        return {
            "rate_per_s": self.rate_per_s,
            "seed": self.seed,
            "role": self.role,
            "held": not self.miss,
            "miss": self.miss,
            "summary": summary(self.run) | {"sent_per_s": round(self.run.sent_per_s, 2)},
            **run_document(self.run),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStand:
    """What is the same for all trials."""

    url: str
    bodies: Sequence[Body]
    goal: Goal
    trial_s: float
    warmup_s: float
    client: Literal["wire", "locust"] = "wire"

    def attempt(self, rate_per_s: float, *, seed: int, role: Role = "search") -> SloTrial:
        """Try *rate_per_s*. A rate at which requests are rare is tried for longer.

        Raises what the client raises; Ctrl-C raises `KeyboardInterrupt`.
        """
        schedule = Schedule(
            rate_per_s=rate_per_s,
            warmup_s=self.warmup_s,
            duration_s=trial_seconds(self.trial_s, rate_per_s),
            seed=seed,
        )
        title = f"{rate_per_s:.1f} requests/s"
        with watching(title, warmup_s=self.warmup_s, duration_s=schedule.duration_s) as watcher:
            # Who has not answered by then has missed the goal; no need to wait for him longer.
            drain_s = max(_LEAST_DRAIN_S, 2 * self.goal.p99_ms / 1e3)
            if self.client == "wire":
                run = scheduled_loop(
                    self.url, self.bodies, schedule, drain_s=drain_s, watcher=watcher
                )
            else:
                run = locust_loop(self._locust(schedule, drain_s), self.bodies, watcher)
        if run.interrupted:
            raise KeyboardInterrupt
        miss = self.goal.miss(run, rate_per_s)
        return SloTrial(rate_per_s=rate_per_s, seed=seed, role=role, run=run, miss=miss)

    def _locust(self, schedule: Schedule, drain_s: float) -> LocustLoad:
        return LocustLoad(
            url=self.url,
            users=min(_LOCUST_USERS, CONNECTIONS),
            rate_per_s=schedule.rate_per_s,
            arrivals=schedule.arrivals,
            shape=schedule.shape,
            warmup_s=schedule.warmup_s,
            duration_s=schedule.duration_s,
            drain_s=drain_s,
            seed=schedule.seed,
            processes=1,
        )


def trial_seconds(trial_s: float, rate_per_s: float) -> float:
    """*trial_s*, or as long as 200 requests take, but not more than four times as long."""
    return min(max(trial_s, _LEAST_REQUESTS / rate_per_s), _MOST_TIMES * trial_s)
