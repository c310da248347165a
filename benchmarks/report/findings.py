"""What a record shows, whatever its kind: systems under loads, with every sample. Pure.

Percentiles are of all samples of all rounds together; they are never averaged.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.peers.checking import LabelAgreement
from benchmarks.record import percentile

OK = 200
TAILS = (50.0, 90.0, 99.0, 99.9)
# So many samples beyond a percentile, or it is a few requests' luck and not shown.
_LEAST_BEYOND = 3
Loop = Literal["engine", "closed", "open", "simulated closed", "simulated open"]


def tails(latencies_ms: Sequence[float]) -> dict[float, float | None]:
    """Percentile -> nearest rank in ms, None where too few samples lie beyond it."""
    count = len(latencies_ms)
    return {
        percent: percentile(latencies_ms, percent)
        if count - math.ceil(percent / 100 * count) >= _LEAST_BEYOND
        else None
        for percent in TAILS
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The samples of one load, in the order sent, with what became of each.

    rate_per_s: requests a second, asked for; None in a closed loop. begin_s: of the window, which
    lasts duration_s. texts_per_s: answered. held: whether the goal held, None where there was none.
    """

    round: int
    rate_per_s: float | None
    begin_s: float
    duration_s: float
    texts_per_s: float
    sent_s: tuple[float, ...]
    latencies_ms: tuple[float, ...]
    statuses: tuple[int, ...]
    held: bool | None = None

    @property
    def answered_ms(self) -> list[float]:
        """Latencies of what was answered with 200."""
        pairs = zip(self.latencies_ms, self.statuses, strict=True)
        return [latency_ms for latency_ms, status in pairs if status == OK]

    @property
    def errors(self) -> int:
        """Requests that were not."""
        return sum(status != OK for status in self.statuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one system showed under one load.

    loop: "engine" has no HTTP. setting: of the load, for people. rates: texts/s, one a round.
    reach: of a search, up to where every trial held and from where none did. trials: the loads
    behind them, where samples were kept. ceiling_per_s: texts/s that the hardware or the bare
    engine allows. cpu_ms: the server's CPU a request, one a round. memory_mb: of the process that
    runs the model, at most; server_memory_mb: of all the server's processes.
    goal_ms: the rate is the highest that kept it. ours: whether the system is miniml. note: what a
    reader must know beside the numbers.
    """

    system: str
    workload: str
    loop: Loop
    setting: str
    rates: tuple[float, ...]
    reach: tuple[float, float] | None = None
    trials: tuple[Trial, ...] = ()
    ceiling_per_s: float | None = None
    agreement: LabelAgreement | None = None
    cpu_ms: tuple[float, ...] = ()
    memory_mb: float | None = None
    server_memory_mb: float | None = None
    goal_ms: float | None = None
    ours: bool = True
    note: str = ""

    @property
    def rate(self) -> float | None:
        """The median of the rounds; None when nothing was seen."""
        return statistics.median(self.rates) if self.rates else None

    @property
    def latencies_ms(self) -> list[float]:
        """Of every answer of every round."""
        return [latency_ms for trial in self.trials for latency_ms in trial.answered_ms]

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return sum(trial.errors for trial in self.trials)

    @property
    def samples(self) -> int:
        """Requests with a latency; without any, rounds."""
        return sum(len(trial.latencies_ms) for trial in self.trials) or len(self.rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Latency over the rate asked for, of one system. goal_ms: of the percentile *percent*.

    highest: the highest rate within the goal, requests/s, one a search. bounds: of a single search,
    up to where every trial held and from where none did. knee_per_s: where latency begins to cost
    more than rate gains, when the record says so.
    """

    system: str
    workload: str
    goal_ms: float
    percent: float
    trials: tuple[Trial, ...]
    highest: tuple[float, ...]
    bounds: tuple[float, float] | None = None
    knee_per_s: float | None = None
    ours: bool = True

    @property
    def rate(self) -> float | None:
        """The median of the searches; None when there was none."""
        return statistics.median(self.highest) if self.highest else None

    def points(self) -> list[tuple[float, float, bool]]:
        """(rate asked for, percentile in ms, held), ascending; trials of one rate are one point."""
        by_rate: dict[float, list[Trial]] = {}
        for trial in self.trials:
            if trial.rate_per_s is not None:
                by_rate.setdefault(trial.rate_per_s, []).append(trial)
        found = []
        for rate, trials in sorted(by_rate.items()):
            latencies_ms = [ms for trial in trials for ms in trial.answered_ms]
            if latencies_ms:
                held = all(trial.held for trial in trials)
                found.append((rate, percentile(latencies_ms, self.percent), held))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalLine:
    """One figure of a record with its goal, as the benchmark itself judges it. values: by round.

    less_is_better: which way a change is a gain. digits: shown.
    """

    name: str
    workload: str
    values: tuple[float, ...]
    less_is_better: bool
    goal: float | None
    held: bool | None
    digits: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that a record shows. missing: (loop, system) -> why it could not be measured."""

    findings: tuple[Finding, ...] = ()
    curves: tuple[Curve, ...] = ()
    goal_lines: tuple[GoalLine, ...] = ()
    missing: Mapping[tuple[Loop, str], str] = field(default_factory=dict)
    samples: int = 0


def number_of_samples(found: Sequence[Finding], curves: Sequence[Curve]) -> int:
    """Samples of all, each once: the trials of a finding may be those of a curve."""
    owned = [*(one.trials for one in found), *(curve.trials for curve in curves)]
    trials = {id(trial): trial for each in owned for trial in each}
    alone = sum(len(one.rates) for one in found if not one.trials)
    return alone + sum(len(trial.latencies_ms) for trial in trials.values())
