"""`miniml bench core`: start a server, lead through the rounds, and leave a record."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.artifacts import find_folder
from benchmarks.core import scenarios
from benchmarks.core.measures import best_batch
from benchmarks.core.overload import overloaded
from benchmarks.core.processes import age_s, replica_of
from benchmarks.core.record import CoreRecord
from benchmarks.core.scenarios import PER_WORKLOAD, Seen, Stand
from benchmarks.errors import ImpossibleOption
from benchmarks.load import fetch_info
from benchmarks.options import CoreOptions
from benchmarks.record import default_path
from benchmarks.server import RunningServer, serving
from benchmarks.subject import about_package
from benchmarks.workloads import WORKLOADS
from serving.package import Package, open_package

_log = logging.getLogger(__name__)
PARTS = ("closed", "calls", "light", "queue", "exact", "overload", "memory", "start")
# What a part is measured against, in the order of a round.
_NEEDS = {
    "ceiling": ("closed", "calls"),
    "before": ("closed", "calls"),
    "closed": ("closed", "queue"),
    "calls": ("calls",),
    "after": ("closed", "calls"),
    "alone": ("closed", "light"),
    "light": ("light",),
    "queue": ("queue",),
}
_WORKLOADS = ("reviews", "queries")
_LEAST_TEXTS = scenarios.CALL_TEXTS
_QUERIES = 8  # for each review: they are shorter by as much
_EXACT_PRECISION = "int8-row-wise"


def run_core(options: CoreOptions) -> CoreRecord:
    """Measure and write the record; when it is cut short, of what was seen by then.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    parts, workloads = _parts(options), _workloads(options)
    _refuse_nonsense(options)
    folder = find_folder(options.package, "package")
    package = open_package(folder)
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    lanes: Mapping[str, int] = {}
    complete = False
    try:
        with serving(str(folder), port=options.port) as server:
            replica_age_s = age_s(replica_of(server.pid))
            info = fetch_info(server.url)
            lanes = info["lanes"]
            if "start" in parts:
                # Without its own word: its age when it first answered, which is later.
                start_s = float(info.get("now", {}).get("start_s") or replica_age_s)
                seen["start_s"][""].append(start_s)
            _measure(_stand(server, info, package, options), parts, workloads, options, seen)
        complete = True
    finally:  # whatever cuts it short does not throw away what was seen
        record = CoreRecord(
            seen={name: dict(by_workload) for name, by_workload in seen.items()},
            scenario=_scenario(options, parts, workloads),
            lanes=lanes,
            package_digest=package.digest,
            precision=package.config.precision,
            package=about_package(package),
            partial=not complete,
        )
        _keep(record, options)
    return record


def _keep(record: CoreRecord, options: CoreOptions) -> None:
    """Write it, unless nothing was seen; a partial one is also shown, since nobody else will."""
    if not record.seen:
        return
    path = record.write(options.output or default_path("core"))
    _log.info("The record with all that was seen is %s", path)
    if record.partial:
        Console(stderr=True).print(record)


def _scenario(
    options: CoreOptions, parts: Sequence[str], workloads: Sequence[str]
) -> dict[str, Any]:
    return {
        "parts": list(parts),
        "workloads": list(workloads),
        "texts": {name: _texts_count(options, name) for name in workloads},
        "rounds": options.rounds,
        "overload_rounds": min(options.rounds, options.overload_rounds),
        "seconds_s": options.seconds_s,
        "warmup_s": options.warmup_s,
        "overload_s": options.overload_s,
        "seed": options.seed,
    }


def _texts_count(options: CoreOptions, workload: str) -> int:
    return options.texts_count * (_QUERIES if workload == "queries" else 1)


def _measure(
    stand: Stand,
    parts: Sequence[str],
    workloads: Sequence[str],
    options: CoreOptions,
    seen: Mapping[str, Mapping[str, list[float]]],
) -> None:
    """All rounds, into *seen*; they take turns, so that what else the machine does hits all parts."""
    rounds = [
        list(_round(stand, parts, workloads, seen, overload=place < options.overload_rounds))
        for place in range(options.rounds)
    ]
    # Once is enough. Exactness early: a run that is cut short is to have it.
    if "exact" in parts:
        rounds[0].append(("exact", "", partial(scenarios.exact, stand)))
    if "memory" in parts:
        rounds[-1].append(("memory", "", partial(scenarios.memory, stand)))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(map(len, rounds)))
        for place, steps in enumerate(rounds, start=1):
            for name, workload, measure in steps:
                title = ", ".join(filter(None, (name, workload)))
                progress.update(task, description=f"Round {place} of {len(rounds)}: {title}")
                for what, values in measure().items():
                    seen[what][workload].extend(values)
                progress.advance(task)


def _round(
    stand: Stand,
    parts: Sequence[str],
    workloads: Sequence[str],
    seen: Mapping[str, Mapping[str, list[float]]],
    *,
    overload: bool,
) -> Iterator[tuple[str, str, Callable[[], Seen]]]:
    """Its steps: name, workload, and what measures it."""
    for workload in workloads:
        for step, wanted in _NEEDS.items():
            if set(wanted) & set(parts):
                yield step, workload, partial(_step, stand, step, workload, seen)
    if overload and "overload" in parts:
        yield "overload", "", partial(overloaded, stand)


def _step(
    stand: Stand, step: str, workload: str, seen: Mapping[str, Mapping[str, list[float]]]
) -> Seen:
    if step == "queue":
        return scenarios.queue(stand, workload, seen["closed_texts_per_s"][workload][-1])
    if step == "calls":
        engine_texts_per_s = seen["engine_before_texts_per_s"][workload][-1]
        return scenarios.calls(stand, workload, engine_texts_per_s)
    if step in {"before", "after"}:
        batch = best_batch(seen, workload) or 1
        return scenarios.beside(stand, workload, batch=batch, when=step)
    return PER_WORKLOAD[step](stand, workload)


def _stand(
    server: RunningServer, info: Mapping[str, Any], package: Package, options: CoreOptions
) -> Stand:
    return Stand(
        url=server.url,
        pid=server.pid,
        package=package.folder,
        exact=package.config.precision.startswith(_EXACT_PRECISION),
        batched=package.config.batch_invariant,
        lanes=info["lanes"]["count"],
        threads=info["lanes"]["threads"],
        texts={
            name: WORKLOADS[name](_texts_count(options, name), options.seed) for name in _WORKLOADS
        },
        seconds_s=options.seconds_s,
        warmup_s=options.warmup_s,
        overload_s=options.overload_s,
        seed=options.seed,
    )


def _parts(options: CoreOptions) -> tuple[str, ...]:
    asked = [name.strip() for name in options.only.split(",") if name.strip()] or PARTS
    if unknown := [name for name in asked if name not in PARTS]:
        raise ImpossibleOption(f"--only knows no {unknown[0]!r}; there are {', '.join(PARTS)}.")
    return tuple(part for part in PARTS if part in asked)


def _workloads(options: CoreOptions) -> tuple[str, ...]:
    return (options.workload,) if options.workload else _WORKLOADS


def _refuse_nonsense(options: CoreOptions) -> None:
    if options.rounds < 1:
        raise ImpossibleOption(f"--rounds is {options.rounds}; at least one round is needed.")
    if options.overload_rounds < 0:
        raise ImpossibleOption(f"--overload-rounds is {options.overload_rounds}; 0 is the least.")
    if options.texts_count < _LEAST_TEXTS:
        raise ImpossibleOption(
            f"--texts-count is {options.texts_count}; give {_LEAST_TEXTS} at least, a call of 32."
        )
    if min(options.seconds_s, options.overload_s) <= 0 or options.warmup_s < 0:
        raise ImpossibleOption("--seconds and --overload-s must be above 0, --warmup-s not below.")
