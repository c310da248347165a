"""`miniml bench soak`: serve, find the capacity, fill the cache, hold the load, leave a record."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
from rich.console import Console

from benchmarks.artifacts import find_folder
from benchmarks.errors import ImpossibleOption, LoadFailed
from benchmarks.record import default_path
from benchmarks.schedule import Schedule
from benchmarks.server import RunningServer, serving
from benchmarks.soak.options import SoakOptions
from benchmarks.soak.page import write_page
from benchmarks.soak.record import SoakRecord
from benchmarks.soak.sampling import MemoryLook, MemoryWatcher
from benchmarks.subject import about_package
from benchmarks.watching import watching
from benchmarks.wire import WireRun, closed_loop, scheduled_loop, send_each_once
from benchmarks.workloads import WORKLOADS, call_bodies
from serving.package import open_package

_log = logging.getLogger(__name__)
# Short and long texts by turns: batches of every shape, and every buffer, from the first minute on.
_WORKLOAD = "mixed"
_CONNECTIONS, _CAPACITY_TEXTS, _CAPACITY_WARMUP_S = 32, 2048, 3.0
_FILL_CALL, _FILL_CONNECTIONS, _FILL_CALLS = 64, 4, 128
_MOST_FILLS = 16
_MOST_SHARE = 0.95  # beyond, a queue grows by chance alone


def run_soak(options: SoakOptions) -> SoakRecord:
    """Measure, and write the record and, beside it, the page; on Ctrl-C of what was seen by then.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    _refuse_nonsense(options)
    folder = find_folder(options.package, "package")
    package = open_package(folder)
    more = ("--cache-mb", f"{options.cache_mb:g}")
    with serving(str(folder), port=options.port, arguments=more) as server:
        capacity_per_s = _capacity(server, options)
        rate_per_s = options.share * capacity_per_s
        filled = _fill_cache(server) if options.cache_mb else 0
        before = _cache_numbers(server)
        run, looks = _hold(server, rate_per_s, options)
        known_share = _known_share(before, {} if run.interrupted else _cache_numbers(server))
    record = SoakRecord(
        run=run,
        looks=looks,
        known_share=known_share,
        capacity_per_s=capacity_per_s,
        rate_per_s=rate_per_s,
        scenario=_scenario(options, filled),
        package_digest=package.digest,
        package=about_package(package),
    )
    path = record.write(options.output or default_path("soak"))
    page = write_page(record, path.with_suffix(".html"))
    _log.info("The record is %s, its page %s", path, page)
    if run.interrupted:
        Console(stderr=True).print(record)
        raise KeyboardInterrupt
    return record


def _scenario(options: SoakOptions, filled: int) -> dict[str, Any]:
    names = ("minutes", "warmup_minutes", "share", "capacity_s", "sample_s", "cache_mb", "seed")
    return {
        "workload": _WORKLOAD,
        "texts_per_call": 1,
        "arrivals": "poisson",
        "texts": options.texts_count,
        "filled_texts": filled,
        **{name: getattr(options, name) for name in names},
    }


def _capacity(server: RunningServer, options: SoakOptions) -> float:
    """Requests/s of a closed loop on the same kind of texts, all computed."""
    run = closed_loop(
        server.url,
        call_bodies(WORKLOADS[_WORKLOAD](_CAPACITY_TEXTS, options.seed + 1)),
        connections=_CONNECTIONS,
        warmup_s=min(_CAPACITY_WARMUP_S, options.capacity_s),
        duration_s=options.capacity_s,
    )
    if not run.latencies_ms:
        raise LoadFailed("The server answered nothing in the closed loop; it said why above.")
    _log.info("A closed loop reaches %.1f requests/s", run.steady_texts_per_s)
    return run.steady_texts_per_s


def _fill_cache(server: RunningServer) -> int:
    """Short texts, each another, until the cache holds no more; how many were sent.

    Else it would fill during the soak, and look like a leak.
    """
    sent, held = 0, _cache_numbers(server).get("cache_entries", 0.0)
    for _ in range(_MOST_FILLS):
        count = _FILL_CALL * _FILL_CALLS
        texts = [f"filled {number}" for number in range(sent, sent + count)]
        bodies = call_bodies(texts, texts_per_call=_FILL_CALL)
        send_each_once(server.url, bodies, connections=_FILL_CONNECTIONS)
        sent += count
        before, held = held, _cache_numbers(server).get("cache_entries", 0.0)
        if held < before + count / 2:
            break
    return sent


def _hold(
    server: RunningServer, rate_per_s: float, options: SoakOptions
) -> tuple[WireRun, list[MemoryLook]]:
    """The load, and the memory meanwhile."""
    # As callers ask, not for computed answers: the cache works, though a text comes round only when
    # its answer is forgotten.
    texts = WORKLOADS[_WORKLOAD](options.texts_count, options.seed)
    bodies = [replace(body, fresh=False) for body in call_bodies(texts)]
    schedule = Schedule(
        rate_per_s=rate_per_s,
        warmup_s=options.warmup_minutes * 60,
        duration_s=options.minutes * 60,
        seed=options.seed,
    )
    title = f"{rate_per_s:.1f} requests/s"
    with watching(title, warmup_s=schedule.warmup_s, duration_s=schedule.duration_s) as shown:
        watcher = MemoryWatcher(server.pid, options.sample_s, shown)
        run = scheduled_loop(server.url, bodies, schedule, watcher=watcher)
    return run, watcher.looks


def _cache_numbers(server: RunningServer) -> Mapping[str, float]:
    """What the server says of its cache; nothing where it has none."""
    answer = httpx.get(f"{server.url}/cache", timeout=60.0, trust_env=False)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    return dict(answer.raise_for_status().json())


def _known_share(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Of the texts asked between the two, those whose answer was known."""

    def more(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    known = more("cache_memory_hits") + more("cache_joined")
    asked = known + more("cache_misses")
    return known / asked if asked > 0 else 0.0


def _refuse_nonsense(options: SoakOptions) -> None:
    if not 0 < options.share <= _MOST_SHARE:
        raise ImpossibleOption(
            f"--share is {options.share:g}; give one above 0 and up to {_MOST_SHARE:g}."
        )
    if not options.minutes > 0 or options.warmup_minutes < 0:
        raise ImpossibleOption("--minutes must be above 0, --warmup-minutes not below.")
    if min(options.capacity_s, options.sample_s) <= 0 or options.texts_count < 1:
        raise ImpossibleOption("--capacity-s, --sample-s and --texts-count must be above 0.")
