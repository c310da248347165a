"""What `miniml bench all` runs, in order: each stage is a benchmark of its own with its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.backends.options import BackendsOptions
from benchmarks.backends.run import run_backends
from benchmarks.core.run import run_core
from benchmarks.errors import ImpossibleOption, LoadFailed
from benchmarks.load import run_load
from benchmarks.load.record import LoadRecord
from benchmarks.options import CoreOptions, LoadOptions, SloOptions
from benchmarks.report.options import ReportOptions
from benchmarks.report.run import write_report
from benchmarks.slo.run import run_slo
from benchmarks.suite.options import SuiteOptions

SuiteWorkload = Literal["reviews", "queries"]
WORKLOADS: tuple[SuiteWorkload, ...] = ("reviews", "queries")
KINDS = ("backends", "core", "load", "slo")
_REPORT = "report"
_OPEN_SHARE = 0.6  # of what the closed loop reached: well below the knee, where latency is no queue
_PRECISION = 0.1  # of the highest rate: trials that decide are repeated instead


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a stage stands on. package: its folder. url: of the endpoint, which starts when asked for.

    closed_per_s: requests/s that closed loops reached, by workload; grows.
    """

    options: SuiteOptions
    package: Path
    url: Callable[[], str]
    closed_per_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStage:
    """kind: the benchmark. share: of the budget, beside the others'. run: what it leaves can be shown, and has a document."""

    kind: str
    name: str
    share: float
    run: Callable[[Ground], Any]


def stages(only: str = "") -> tuple[SuiteStage, ...]:
    """All, in order, or those of some kinds and the report. Raises `ImpossibleOption`.

    Their shares are minutes of the default budget, on two slow cores.
    """
    kinds = tuple(filter(None, (name.strip() for name in only.split(",")))) or KINDS
    if unknown := [name for name in kinds if name not in KINDS]:
        raise ImpossibleOption(f"--only knows no {unknown[0]!r}; there are {', '.join(KINDS)}.")
    return tuple(stage for stage in _all() if stage.kind in (*kinds, _REPORT))


def _all() -> tuple[SuiteStage, ...]:
    each = {
        "closed loop": ("load", 0.4, _closed),
        "open loop": ("load", 0.4, _open),
        "highest rate": ("slo", 2.4, _search),
    }
    return (
        SuiteStage(kind="backends", name="backends", share=5.0, run=_backends),
        SuiteStage(kind="core", name="core", share=8.0, run=_core),
        *(
            SuiteStage(
                kind=kind, name=f"{name}, {texts}", share=share, run=partial(run, workload=texts)
            )
            for name, (kind, share, run) in each.items()
            for texts in WORKLOADS
        ),
        SuiteStage(kind=_REPORT, name=_REPORT, share=0.5, run=_report),
    )


def _backends(ground: Ground) -> Any:
    options = ground.options
    return run_backends(
        BackendsOptions(
            package=str(ground.package),
            rounds=options.rounds,
            cell_s=options.cell_s,
            port=options.port,
            seed=options.seed,
        )
    )


def _core(ground: Ground) -> Any:
    options = ground.options
    return run_core(
        CoreOptions(
            package=str(ground.package),
            port=options.port,
            texts_count=options.texts_count,
            rounds=options.rounds,
            seconds_s=options.load_s,
            warmup_s=options.warmup_s,
            overload_rounds=1,
            overload_s=options.overload_s,
            seed=options.seed,
        )
    )


def _closed(ground: Ground, *, workload: SuiteWorkload) -> LoadRecord:
    record = _load(ground, workload, rate_per_s=None)
    ground.closed_per_s[workload] = record.run.requests_per_s
    return record


def _open(ground: Ground, *, workload: SuiteWorkload) -> LoadRecord:
    """Raises `LoadFailed` when there was no closed loop to take the rate from."""
    if not (reached_per_s := ground.closed_per_s.get(workload)):
        raise LoadFailed(f"No closed loop of {workload} says which rate to send; see above.")
    return _load(ground, workload, rate_per_s=round(_OPEN_SHARE * reached_per_s, 1))


def _load(ground: Ground, workload: SuiteWorkload, *, rate_per_s: float | None) -> LoadRecord:
    options = ground.options
    return run_load(
        LoadOptions(
            url=ground.url(),
            workload=workload,
            rate_per_s=rate_per_s,
            duration_s=options.load_s,
            warmup_s=options.warmup_s,
            seed=options.seed,
        )
    )


def _search(ground: Ground, *, workload: SuiteWorkload) -> Any:
    options = ground.options
    goals_ms = {"queries": options.queries_goal_ms, "reviews": options.reviews_goal_ms}
    return run_slo(
        SloOptions(
            url=ground.url(),
            workload=workload,
            p99_ms=goals_ms[workload],
            trial_s=options.load_s,
            max_trials=options.trials,
            precision=_PRECISION,
            seed=options.seed,
        )
    )


def _report(ground: Ground) -> Any:
    return write_report(ReportOptions(newest=True, output=ground.options.output))
