"""Lead through one load: what is sent, by which client, and what is left of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from benchmarks.errors import ImpossibleOption, LoadFailed
from benchmarks.load.endpoint import fetch_info
from benchmarks.load.record import LoadRecord, status_name
from benchmarks.load.texts import CallTexts, check_texts, choose_texts
from benchmarks.locusts.driving import LocustLoad, locust_loop
from benchmarks.options import LoadOptions
from benchmarks.record import default_path
from benchmarks.schedule import Schedule
from benchmarks.watching import LoadWatcher, watching
from benchmarks.wire import DRAIN_S, Body, WireRun, closed_loop, scheduled_loop
from benchmarks.workloads import REPEATED, row_bodies

_log = logging.getLogger(__name__)
CLOSED_USERS, OPEN_USERS = 8, 256


def run_load(options: LoadOptions) -> LoadRecord:
    """Load the endpoint and write the record; on Ctrl-C of what was seen, and then interrupt.

    Raises `BenchmarkError` with one sentence: `ServerUnreachable`, `NoTexts`, `ImpossibleOption`,
    `TooFewFiles`, or `LoadFailed` when the client broke or nothing was answered.
    """
    _refuse_impossible(options)
    check_texts(options)
    info = fetch_info(options.url)
    texts = choose_texts(options, info)
    bodies = row_bodies(
        texts.rows,
        texts_per_call=options.texts_per_call,
        seed=options.seed,
        fresh=options.workload != REPEATED,
    )
    title = f"Load of {options.url}"
    with watching(title, warmup_s=options.warmup_s, duration_s=options.duration_s) as watcher:
        run = _send(options, bodies, watcher)
    if not run.shots and run.interrupted:
        _log.info("Interrupted before anything was measured, so there is no record")
        raise KeyboardInterrupt
    record = _record(options, run, texts, info)
    if not run.latencies_ms and not run.interrupted:
        raise LoadFailed(_nothing_answered(options.url, run))
    path = record.write(options.output or default_path("load"))
    _log.info("The record with every sample is %s", path)
    if run.interrupted:
        Console(stderr=True).print(record)
        raise KeyboardInterrupt
    return record


def _send(options: LoadOptions, bodies: Sequence[Body], watcher: LoadWatcher) -> WireRun:
    if options.client == "locust":
        return locust_loop(_locust_load(options), bodies, watcher)
    if options.rate_per_s is None:
        return closed_loop(
            options.url,
            bodies,
            connections=_users(options),
            warmup_s=options.warmup_s,
            duration_s=options.duration_s,
            watcher=watcher,
        )
    schedule = Schedule(
        rate_per_s=options.rate_per_s,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        arrivals=options.arrivals,
        shape=options.shape,
        seed=options.seed,
    )
    return scheduled_loop(
        options.url, bodies, schedule, connections=_users(options), watcher=watcher
    )


def _locust_load(options: LoadOptions) -> LocustLoad:
    return LocustLoad(
        url=options.url,
        users=_users(options),
        rate_per_s=options.rate_per_s,
        arrivals=options.arrivals,
        shape=options.shape,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        drain_s=DRAIN_S,
        seed=options.seed,
        processes=options.processes,
    )


def _users(options: LoadOptions) -> int:
    return options.users or (CLOSED_USERS if options.rate_per_s is None else OPEN_USERS)


def _refuse_impossible(options: LoadOptions) -> None:
    """Raise `ImpossibleOption` for what could not be measured."""
    if options.rate_per_s is not None and not 0 < options.rate_per_s < math.inf:
        raise ImpossibleOption(
            f"--rate-per-s is {options.rate_per_s:g}; give requests a second above 0, or leave it"
            " out for a closed loop."
        )
    if options.users is not None and options.users < 1:
        raise ImpossibleOption(f"--users is {options.users}; at least one is needed.")
    if not options.duration_s > 0 or options.warmup_s < 0:
        raise ImpossibleOption("--duration-s must be above 0, and --warmup-s not below.")
    if options.processes < 1:
        raise ImpossibleOption(f"--processes is {options.processes}; at least one is needed.")
    if options.client == "wire" and options.processes > 1:
        raise ImpossibleOption(
            "--client wire is one process; leave --processes out, or use locust."
        )
    if options.client == "wire" and options.rate_per_s is None and options.shape != "steady":
        raise ImpossibleOption("--client wire has a steady closed loop only; use --client locust.")
    if (users := _users(options)) < options.processes:
        raise ImpossibleOption(f"{users} users do not fill {options.processes} processes.")


def _nothing_answered(url: str, run: WireRun) -> str:
    told = ", ".join(f"{status_name(status)}: {count}" for status, count in run.errors.items())
    if not run.shots:
        return (
            "No request fell into the time measured; give a longer --duration-s or a higher rate."
        )
    return f"{url} answered none of {len(run.shots)} requests with 200 ({told}); see its log."


def _record(
    options: LoadOptions, run: WireRun, texts: CallTexts, info: Mapping[str, Any]
) -> LoadRecord:
    closed = options.rate_per_s is None
    loop: dict[str, Any] = (
        {} if closed else {"rate_per_s": options.rate_per_s, "arrivals": options.arrivals}
    )
    return LoadRecord(
        run=run,
        level=_users(options) if options.rate_per_s is None else options.rate_per_s,
        loop="closed" if closed else "open",
        shape=options.shape,
        scenario={
            **texts.document(),
            "texts_per_call": options.texts_per_call,
            "client": options.client,
            "processes": options.processes,
            "users": _users(options),
            **loop,
            "shape": options.shape,
            "duration_s": options.duration_s,
            "warmup_s": options.warmup_s,
            "seed": options.seed,
        },
        package_digest=str(info.get("package_digest", "")),
        server=dict(info),
    )
