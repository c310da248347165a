"""What of a record can be compared, cut into units that are independent enough to resample. Pure.

Requests of one second share its fate, so they are no units. With three rounds or more a round is
one; otherwise a round's window is cut into up to ten blocks of time, of a second at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.report.findings import OK, Curve, Finding, Findings, Trial

Unit = npt.NDArray[np.float64]
_ENOUGH_ROUNDS = 3
_BLOCKS, _LEAST_BLOCK_S = 10, 1.0
_LEAST_ANSWERS = 100  # a p99 of fewer is the luck of one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One thing to compare. percent: of the pooled units; None for their mean.

    less_is_better: which way a change is a gain. bounds: of a search, what its trials leave possible.
    """

    name: str
    units: tuple[Unit, ...]
    less_is_better: bool
    percent: float | None = None
    bounds: tuple[float, float] | None = None
    digits: int = 1

    def value(self) -> float:
        """Of all units."""
        return float(self.resampled(np.arange(len(self.units))))

    def resampled(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Of the units that are *chosen*, each as often as it is: (..., N) -> (...)."""
        times = (chosen[..., None] == np.arange(len(self.units))).sum(axis=-2)  # (..., units)
        sizes = np.array([len(unit) for unit in self.units])
        if self.percent is None:
            sums = np.array([unit.sum() for unit in self.units])
            return np.asarray(times @ sums / (times @ sizes))
        # Every value, ascending, as often as its unit was chosen, until the nearest rank.
        pooled = np.concatenate(self.units)
        order = np.argsort(pooled, kind="stable")
        owners = np.repeat(np.arange(len(self.units)), sizes)[order]
        passed = np.cumsum(times[..., owners], axis=-1)
        rank = np.ceil(np.round(self.percent / 100 * passed[..., -1:], 9))
        return np.asarray(pooled[order][(passed < rank).sum(axis=-1)])


def measured(found: Findings) -> list[Measured]:
    """Everything of ours: what became of a peer is no gain and no loss of ours."""
    lines = [m for finding in found.findings if finding.ours for m in _of_finding(finding)]
    lines += [m for curve in found.curves if curve.ours for m in _of_curve(curve)]
    named = {line.name: line for line in lines}
    for goal in found.goal_lines:
        name = f"{goal.name} {goal.workload}".strip()
        if goal.values and not goal.name.endswith("texts/s"):  # those are findings already
            named[name] = Measured(
                name=name,
                units=tuple(np.array([value]) for value in goal.values),
                less_is_better=goal.less_is_better,
                digits=goal.digits,
            )
    return list(named.values())


def error_share(found: Findings) -> float:
    """Of the requests of our closed loops and of the rates that held: not answered with 200."""
    trials = [t for finding in found.findings if finding.ours for t in finding.trials]
    requests = sum(len(trial.statuses) for trial in trials)
    return sum(trial.errors for trial in trials) / requests if requests else 0.0


def _of_finding(finding: Finding) -> Iterator[Measured]:
    name = f"{finding.system}, {finding.workload}, {finding.setting}"
    if not finding.loop.endswith("open") and finding.rates:
        yield Measured(name=f"{name}: texts/s", units=_rate_units(finding), less_is_better=False)
    if finding.loop.endswith("closed") and len(finding.latencies_ms) >= _LEAST_ANSWERS:
        yield from _latencies(name, finding.trials)
    if finding.cpu_ms:
        yield Measured(
            name=f"{name}: CPU ms a request",
            units=tuple(np.array([value]) for value in finding.cpu_ms),
            less_is_better=True,
            digits=2,
        )


def _of_curve(curve: Curve) -> Iterator[Measured]:
    name = f"{curve.system}, {curve.workload}"
    if curve.highest:
        yield Measured(
            name=f"{name}: highest rate with p{curve.percent:g} within {curve.goal_ms:g} ms",
            units=tuple(np.array([rate]) for rate in curve.highest),
            less_is_better=False,
            bounds=curve.bounds,
        )


def _latencies(name: str, trials: Sequence[Trial]) -> Iterator[Measured]:
    for percent in (50.0, 99.0):
        yield Measured(
            name=f"{name}: p{percent:g} ms",
            units=_latency_units(trials),
            less_is_better=True,
            percent=percent,
        )


def _rate_units(finding: Finding) -> tuple[Unit, ...]:
    if len(finding.rates) >= _ENOUGH_ROUNDS or not finding.trials:
        return tuple(np.array([rate]) for rate in finding.rates)
    units: list[Unit] = []
    for trial in finding.trials:
        ends_s = [
            sent_s + latency_ms / 1e3 for sent_s, latency_ms, status in _rows(trial) if status == OK
        ]
        edges = _edges(trial)
        counts = np.histogram(ends_s, edges)[0] / np.diff(edges)
        # By the trial's own texts a request, which its rate knows.
        texts = trial.texts_per_s / max(counts.mean(), 1e-9)
        units += [np.array([count * texts]) for count in counts]
    return tuple(units)


def _latency_units(trials: Sequence[Trial]) -> tuple[Unit, ...]:
    if len(trials) >= _ENOUGH_ROUNDS:
        return tuple(np.array(trial.answered_ms) for trial in trials)
    units: list[Unit] = []
    for trial in trials:
        rows = [(sent_s, ms) for sent_s, ms, status in _rows(trial) if status == OK]
        edges = _edges(trial)
        places = np.searchsorted(edges, [sent_s for sent_s, _ in rows], side="right")
        latencies_ms = np.array([ms for _, ms in rows])
        blocks = [latencies_ms[places == place] for place in range(1, len(edges))]
        units += [block for block in blocks if len(block)]
    return tuple(units)


def _edges(trial: Trial) -> npt.NDArray[np.float64]:
    blocks = int(max(1, min(_BLOCKS, trial.duration_s // _LEAST_BLOCK_S)))
    return np.linspace(trial.begin_s, trial.begin_s + trial.duration_s, blocks + 1)


def _rows(trial: Trial) -> Iterator[tuple[float, float, int]]:
    return zip(trial.sent_s, trial.latencies_ms, trial.statuses, strict=True)
