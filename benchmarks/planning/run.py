"""`miniml bench planner`: every load under every policy, a record and a page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.artifacts import find_folder
from benchmarks.errors import ImpossibleOption
from benchmarks.options import PlannerOptions
from benchmarks.planning.decisions import WAITING, decision_times_ms
from benchmarks.planning.ours import MAX_BATCH, Planned
from benchmarks.planning.page import write_page
from benchmarks.planning.policies import OTHERS, MakePolicy
from benchmarks.planning.record import (
    OURS,
    PlannerRecord,
    PlannerRun,
    latencies_ms,
    texts_per_s,
)
from benchmarks.planning.simulator import TURNAROUND_S, Arrival, Replay, replay, replay_closed
from benchmarks.planning.trace import at_rate, made_arrivals, rate_per_s, read_arrivals
from benchmarks.planning.truth import (
    NOISE,
    TOLD_NOISE,
    TOLD_SPEED,
    Truth,
    offline_texts_per_s,
    smoothed,
    told_grid,
)
from benchmarks.record import default_path, machine, percentile
from serving.engine import Engine, TextTokenizer
from serving.lanes import Lanes, measure_cost
from serving.package import CostGrid, Package, open_package

_log = logging.getLogger(__name__)
_SHARES = (0.5, 0.8, 0.95, 1.2)
_WORKLOADS = ("reviews", "queries")
_FEWEST_TEXTS = 10
RunLoad = Callable[[MakePolicy], Replay]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SimulatedLoad:
    """One load: how to run it, and what makes one policy's run better than another's (less)."""

    workload: str
    share: float | None
    run: RunLoad
    score: Callable[[Replay], float]


def run_planner(options: PlannerOptions) -> PlannerRecord:
    """Simulate, measure a decision, and write the record and, beside it, the page.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    _refuse_nonsense(options)
    package = open_package(find_folder(options.package, "package"))
    traces = _traces(options, package)
    lanes = options.lanes
    measured = _measured_grid(package, lanes) if options.measure else package.cost
    grid = smoothed(measured)
    ceilings = {
        name: offline_texts_per_s([a.tokens for a in trace], grid, lanes)
        for name, trace in traces.items()
    }
    loads = [
        load
        for name, trace in traces.items()
        for load in _loads(name, trace, ceilings[name], grid, options)
    ]
    tokens = {name: [a.tokens for a in trace] for name, trace in traces.items()}
    record = PlannerRecord(
        tokens=tokens,
        offline_texts_per_s=ceilings,
        measured=measured,
        grid=grid,
        runs=_simulate(loads, partial(Planned, told_grid(measured, seed=options.seed))),
        decisions=_decisions([n for lengths in tokens.values() for n in lengths], grid, options),
        scenario=_scenario(options, traces),
        package_digest=package.digest,
        precision=package.config.precision,
    )
    path = record.write(options.output or default_path("planner"))
    page = write_page(record, path.with_suffix(".html"))
    _log.info("The record with every sample is %s, its page %s", path, page)
    return record


def _measured_grid(package: Package, lanes: int) -> CostGrid:
    """As export measures it, all lanes busy, but here and up to the planner's largest batch."""
    _log.info("Measuring what batches cost here, half a minute at most.")
    threads = package.cost.threads
    return measure_cost(
        Engine(package, threads=threads, streams=lanes),
        machine=f"{machine()['cpu']}, {machine()['cores']} cores",
        lanes=Lanes(count=lanes, threads=threads),
        batches=(1, 2, 4, 8, 16, MAX_BATCH),
    )


def _traces(options: PlannerOptions, package: Package) -> dict[str, list[Arrival]]:
    """Workload -> its arrivals; of a recorded trace, its file's name."""
    tokenizer = TextTokenizer(package.tokenizer_path, max_length=package.config.max_length)

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in tokenizer.encode(texts)]

    if options.trace:
        arrivals = read_arrivals(
            options.trace, workload=options.workload, count_tokens=count_tokens
        )
        return {options.trace.stem: arrivals[: options.texts_count]}
    names = (options.workload,) if options.workload else _WORKLOADS
    return {
        name: made_arrivals(name, options.texts_count, seed=options.seed, count_tokens=count_tokens)
        for name in names
    }


def _loads(
    name: str, trace: Sequence[Arrival], ceiling: float, grid: CostGrid, options: PlannerOptions
) -> Iterator[_SimulatedLoad]:
    """A recorded trace as it was recorded, then each share of the ceiling, then the closed loop.

    Every policy meets the same arrivals and the same noise.
    """

    def truth() -> Truth:
        return Truth(grid, seed=options.seed)

    def opened(share: float) -> _SimulatedLoad:
        arrivals = at_rate(trace, share * ceiling)
        return _SimulatedLoad(
            workload=name,
            share=share,
            run=lambda make: replay(arrivals, make(), truth(), lanes=options.lanes),
            score=lambda seen: percentile(latencies_ms(seen), 99),
        )

    as_recorded = {round(rate_per_s(trace) / ceiling, 4)} if options.trace else set()
    yield from map(opened, sorted({*as_recorded, *_SHARES}))
    yield _SimulatedLoad(
        workload=name,
        share=None,
        run=lambda make: replay_closed(
            trace,
            make(),
            truth(),
            lanes=options.lanes,
            callers=options.callers,
            seed=options.seed,
        ),
        score=lambda seen: -texts_per_s(seen),
    )


def _simulate(loads: Sequence[_SimulatedLoad], ours: MakePolicy) -> list[PlannerRun]:
    """Ours, and of each other policy the parameter that did best at that very load."""
    policies: Mapping[str, Mapping[str, MakePolicy]] = {OURS: {"": ours}, **OTHERS}
    runs = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        total = len(loads) * sum(map(len, policies.values()))
        task = progress.add_task("Simulating", total=total)
        for load in loads:
            for policy, parameters in policies.items():
                seen = {}
                for parameter, make in parameters.items():
                    seen[parameter] = load.run(make)
                    progress.advance(task)
                runs.append(_best(load, policy, seen))
    return runs


def _best(load: _SimulatedLoad, policy: str, seen: Mapping[str, Replay]) -> PlannerRun:
    scores = {parameter: load.score(found) for parameter, found in seen.items()}
    best = min(scores, key=scores.__getitem__)
    return PlannerRun(
        workload=load.workload,
        loop="closed" if load.share is None else "open",
        share=load.share,
        policy=policy,
        parameter=best,
        tried={parameter: abs(score) for parameter, score in scores.items()},
        replay=seen[best],
    )


def _decisions(
    tokens: Sequence[int], grid: CostGrid, options: PlannerOptions
) -> dict[str, list[float]]:
    return {
        case: decision_times_ms(tokens, grid, tight=tight, seed=options.seed)
        for case, tight in (("no deadlines", False), ("every text due soon", True))
    }


def _scenario(options: PlannerOptions, traces: Mapping[str, Sequence[Arrival]]) -> dict[str, Any]:
    return {
        "workloads": list(traces),
        "trace": options.trace.name if options.trace else None,
        "texts": {name: len(trace) for name, trace in traces.items()},
        "lanes": options.lanes,
        "callers": options.callers,
        "max_batch": MAX_BATCH,
        "costs": "measured here" if options.measure else "the package's",
        "turnaround_s": TURNAROUND_S,
        "noise": NOISE,
        "told_noise": TOLD_NOISE,
        "told_speed": TOLD_SPEED,
        "decisions_waiting": WAITING,
        "seed": options.seed,
    }


def _refuse_nonsense(options: PlannerOptions) -> None:
    if options.texts_count < _FEWEST_TEXTS:
        raise ImpossibleOption(
            f"--texts-count is {options.texts_count}; at least {_FEWEST_TEXTS} are needed."
        )
    if options.lanes < 1 or options.callers < 1:
        raise ImpossibleOption("--lanes and --callers must be at least 1.")
