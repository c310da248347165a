"""`miniml bench scaling`: every trace under every policy, a record and a page."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial

from rich.console import Console
from rich.progress import Progress

from benchmarks.errors import ImpossibleOption
from benchmarks.record import default_path
from benchmarks.scaling.options import ScalingOptions
from benchmarks.scaling.page import write_page
from benchmarks.scaling.policies import MakeScaling, OnOngoingRequests, OnQueuedWork
from benchmarks.scaling.record import DEFAULT, OURS, ScalingRecord, ScalingRun
from benchmarks.scaling.simulator import ReplicaKind, Simulated, simulate
from benchmarks.scaling.trace import MAKERS, LoadTrace, read_trace
from serving.scaling import ScalingGoal

_log = logging.getLogger(__name__)
_MOST_REPLICAS = 1000
_TUNED = "Ray's best"
_TARGETS = (1, 1.5, 2, 3, 5)
_DELAYS_S = (60, 300)
_ROOM = 1.5  # replicas that may be wanted, over those that the peak would keep busy
_START_BUSY = 0.8  # of the replicas that a trace begins with


def run_scaling(options: ScalingOptions) -> ScalingRecord:
    """Simulate, and write the record and, beside it, the page.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    _refuse_nonsense(options)
    traces = _traces(options)
    record = ScalingRecord(
        traces=traces,
        runs=_simulate(traces, options),
        scenario={
            "replicas": options.replicas,
            "trace": options.trace.name if options.trace else None,
            "queue_goal_ms": options.queue_goal_ms,
            "start_s": options.start_s,
            "drain_s": options.drain_s,
            "batch_ms": options.batch_ms,
            "seed": options.seed,
        },
    )
    path = record.write(options.output or default_path("scaling"))
    page = write_page(record, path.with_suffix(".html"))
    _log.info("The record is %s, its page %s", path, page)
    return record


def _traces(options: ScalingOptions) -> list[LoadTrace]:
    if options.trace:
        return [read_trace(options.trace)]
    return [make(options.replicas, options.seed) for make in MAKERS.values()]


def _policies(
    trace: LoadTrace, kind: ReplicaKind, queue_ms: float
) -> dict[str, dict[str, MakeScaling]]:
    """Policy -> parameter -> how to make it."""
    most = math.ceil(trace.load.max() * _ROOM) + 1
    goal = ScalingGoal(least=1, most=most, queue_ms=queue_ms, lead_s=kind.start_s)
    tuned: dict[str, MakeScaling] = {
        f"{target:g} open, {delay_s} s": partial(
            OnOngoingRequests,
            goal,
            target_ongoing_requests=target,
            upscale_delay_s=0,
            downscale_delay_s=delay_s,
        )
        for target in _TARGETS
        for delay_s in _DELAYS_S
    }
    return {
        OURS: {"": partial(OnQueuedWork, goal, kind)},
        DEFAULT: {"": partial(OnOngoingRequests, goal)},
        _TUNED: tuned,
    }


def _simulate(traces: Sequence[LoadTrace], options: ScalingOptions) -> list[ScalingRun]:
    kind = ReplicaKind(start_s=options.start_s, drain_s=options.drain_s, batch_ms=options.batch_ms)
    plans = [(trace, _policies(trace, kind, options.queue_goal_ms)) for trace in traces]
    runs = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        total = sum(len(made) for _, policies in plans for made in policies.values())
        task = progress.add_task("Simulating", total=total)
        for trace, policies in plans:
            count = max(1, math.ceil(trace.load[0] / _START_BUSY))
            for policy, parameters in policies.items():
                seen = {}
                for parameter, make in parameters.items():
                    seen[parameter] = simulate(trace, make(), kind, count=count, seed=options.seed)
                    progress.advance(task)
                runs.append(_best(trace, policy, seen))
    return runs


def _best(trace: LoadTrace, policy: str, seen: Mapping[str, Simulated]) -> ScalingRun:
    """The one of least p99 times replica-seconds: half the wait is worth twice the replicas."""
    tried = {
        name: (round(each.wait_ms(99), 2), round(each.replica_s)) for name, each in seen.items()
    }
    best = min(tried, key=lambda name: max(tried[name][0], 1.0) * tried[name][1])
    return ScalingRun(
        trace=trace.name, policy=policy, parameter=best, tried=tried, simulated=seen[best]
    )


def _refuse_nonsense(options: ScalingOptions) -> None:
    if not 1 <= options.replicas <= _MOST_REPLICAS:
        raise ImpossibleOption(f"--replicas must be from 1 to {_MOST_REPLICAS}.")
    if min(options.queue_goal_ms, options.batch_ms) <= 0:
        raise ImpossibleOption("--queue-goal-ms and --batch-ms must be above 0.")
    if min(options.start_s, options.drain_s) < 0:
        raise ImpossibleOption("--start-s and --drain-s must not be negative.")
