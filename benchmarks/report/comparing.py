"""Whether one record is better or worse than another, beyond chance and beyond a tolerance. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich.table import Table

from benchmarks.report.findings import Findings
from benchmarks.report.measured import Measured, error_share, measured
from benchmarks.report.numbers import number
from benchmarks.report.records import Certificate

Verdict = Literal["better", "same", "worse", "unsure"]
_LEVEL = 0.95
_RESAMPLES, _BATCH = 2000, 50
_WIDE = 1.5  # 1.2 / 0.8
_ERRORS = 0.001  # a server that begins to refuse one in a thousand has become worse
_MACHINE = ("cpu", "cores", "system", "gpu")
# Told by a scenario, though nobody asked for it.
_NOT_ASKED = ("complete", "url", "mean_tokens", "alone_p50_ms", "eight_callers_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One measure of both. ratio: new over old. low, high: of its confidence interval.

    None where there is no ratio, or too few units to have an interval.
    """

    name: str
    old: float
    new: float
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    digits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All changes. apart: what differs between the two that should not, when it was forced."""

    old: Certificate
    new: Certificate
    changes: tuple[Change, ...]
    tolerance: float
    apart: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[Change, ...]:
        """The regressions."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    @property
    def exit_code(self) -> int:
        """1 when anything became worse."""
        return int(bool(self.worse))

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "old": self.old.name,
            "new": self.new.name,
            "tolerance_percent": 100 * self.tolerance,
            "apart": list(self.apart),
            "changes": [
                {
                    name: getattr(change, name)
                    for name in ("name", "old", "new", "ratio", "low", "high", "verdict")
                }
                for change in self.changes
            ],
            "worse": len(self.worse),
        }

    def __rich__(self) -> Table:
        """A line a measure."""
        table = Table(
            title=f"{self.new.name} ({self.new.commit}) against {self.old.name} ({self.old.commit})",
            title_justify="left",
            caption=_caption(self),
            caption_justify="left",
        )
        for name in ("measure", "old", "new", "new / old", "interval", "verdict"):
            table.add_column(name, justify="left" if name in ("measure", "verdict") else "right")
        for change in self.changes:
            interval = "" if change.low is None else f"{change.low:.2f} to {change.high:.2f}"
            table.add_row(
                change.name,
                number(change.old, change.digits),
                number(change.new, change.digits),
                number(change.ratio, 3),
                interval,
                change.verdict,
            )
        return table


def differences(old: Certificate, new: Certificate) -> tuple[str, ...]:
    """What makes the two say little about each other: kind, machine, scenario, a run cut short."""
    found = [f"kind: {old.kind} and {new.kind}"] if old.kind != new.kind else []
    found += _apart("machine", old.machine, new.machine, _MACHINE)
    asked = [name for name in {**old.scenario, **new.scenario} if name not in _NOT_ASKED]
    found += _apart("scenario", old.scenario, new.scenario, asked)
    return (*found, *(f"{said.name} was cut short" for said in (old, new) if said.partial))


def compare_findings(old: Findings, new: Findings, *, tolerance: float) -> tuple[Change, ...]:
    """Every measure that both have. tolerance: share by which a change must be beyond 1."""
    news = {line.name: line for line in measured(new)}
    pairs = [(line, news[line.name]) for line in measured(old) if line.name in news]
    level = 1 - (1 - _LEVEL) / max(len(pairs), 1)  # 95 % for all of them together
    changes = [_change(before, after, level, tolerance) for before, after in pairs]
    return (*changes, _error_change(error_share(old), error_share(new)))


def _change(old: Measured, new: Measured, level: float, tolerance: float) -> Change:
    values = old.value(), new.value()
    divides = all(unit.min() > 0 for unit in old.units)
    divides = divides and all(unit.min() >= 0 for unit in new.units)
    interval = interval_of_ratio(old, new, level) if divides else None
    low, high = interval or (None, None)
    verdict = _verdict(interval, tolerance, less_is_better=old.less_is_better)
    if not any(unit.any() for unit in old.units) and old.less_is_better:
        verdict = "worse" if values[1] > 0 else "same"  # no wrong answer, and then one
    return Change(
        name=old.name,
        old=values[0],
        new=values[1],
        ratio=values[1] / values[0] if divides else None,
        low=low,
        high=high,
        verdict=verdict,
        digits=old.digits,
    )


def interval_of_ratio(old: Measured, new: Measured, level: float) -> tuple[float, float] | None:
    """Bootstrap interval of new / old over the units of each; None when one has a single unit.

    Of two searches: from the least to the most that their trials leave possible.

    The percentile interval, expanded for few units (Hesterberg 2015): plain, it is too narrow by
    sqrt((n - 1) / n) and by what Student's t is wider than the normal. Of three rounds it is then
    as wide as the rounds are apart.
    """
    from scipy.stats import bootstrap, norm, t

    if old.bounds and new.bounds and min(old.bounds) > 0:
        return new.bounds[0] / old.bounds[1], new.bounds[1] / old.bounds[0]
    fewest = min(len(old.units), len(new.units))
    if fewest < 2:  # noqa: PLR2004 - one unit has no spread
        return None
    wider = math.sqrt(fewest / (fewest - 1)) * t.ppf((1 + level) / 2, fewest - 1)
    found = bootstrap(
        (np.arange(len(old.units)), np.arange(len(new.units))),
        lambda before, after, axis: new.resampled(after) / old.resampled(before),  # noqa: ARG005
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        confidence_level=min(2 * norm.cdf(wider) - 1, 1 - 1e-9),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _verdict(
    interval: tuple[float, float] | None, tolerance: float, *, less_is_better: bool
) -> Verdict:
    """Better or worse only when the whole interval lies beyond the tolerance.

    Unsure when the interval is so wide that a fifth more or less would have hidden in it.
    """
    if interval is None:
        return "unsure"
    low, high = interval
    if high < 1 - tolerance:
        return "better" if less_is_better else "worse"
    if low > 1 + tolerance:
        return "worse" if less_is_better else "better"
    return "same" if high <= _WIDE * low else "unsure"


def _error_change(old: float, new: float) -> Change:
    verdict: Verdict = "same"
    if abs(new - old) > _ERRORS:
        verdict = "worse" if new > old else "better"
    return Change(
        name="requests not answered with 200, %",
        old=100 * old,
        new=100 * new,
        ratio=None,
        low=None,
        high=None,
        verdict=verdict,
        digits=2,
    )


def _apart(
    of: str, old: Mapping[str, Any], new: Mapping[str, Any], names: tuple[str, ...] | list[str]
) -> list[str]:
    return [
        f"{of}'s {name}: {old.get(name)} and {new.get(name)}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _caption(comparison: Comparison) -> str:
    said = (
        f"Better or worse: the whole interval ({_LEVEL:.0%} for all lines together, bootstrap over"
        f" rounds or blocks of time) lies more than {comparison.tolerance:.0%} from 1."
        " Unsure: a single round without samples has no interval, or a change of a fifth would hide"
        " in it."
    )
    return said + (f" Compared anyway: {'; '.join(comparison.apart)}." if comparison.apart else "")
