"""`miniml bench cache`: what known answers are worth, on reviews over HTTP.

Three ways in turn, on one server: every answer computed, every answer known, and texts as callers
repeat them (Zipf's law), from an empty cache. All over the same connections, with our lean client.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.load import fetch_info
from benchmarks.options import CacheBenchOptions
from benchmarks.record import (
    SCHEMA_VERSION,
    commit,
    default_path,
    machine,
    now,
    versions,
    write_document,
)
from benchmarks.server import RunningServer, serving
from benchmarks.wire import Body, WireRun, closed_loop, send_each_once
from benchmarks.workloads import WORKLOADS, call_bodies, zipf

COMPUTED, KNOWN, ZIPF = "computed", "known", "zipf"
GOAL = 5.0
_KNOWN_TEXTS = 256
_CACHE_MB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """rates: way -> texts/s of each round. hit_shares: of the Zipf texts, a round each."""

    rates: Mapping[str, Sequence[float]]
    hit_shares: Sequence[float]
    errors: int
    scenario: Mapping[str, Any]
    package_digest: str
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)
    kind: str = "cache"
    schema_version: int = SCHEMA_VERSION

    def times(self, way: str) -> list[float]:
        """How many times the rate of computing *way* has, round by round."""
        pairs = zip(self.rates[way], self.rates[COMPUTED], strict=True)
        return [rate / computed for rate, computed in pairs]

    def document(self) -> dict[str, Any]:
        """Rates, and what is derived from them."""
        ratios = {
            f"{way}_times": round(statistics.median(self.times(way)), 2) for way in self._ways
        }
        return {**asdict(self), **ratios}

    @property
    def _ways(self) -> tuple[str, str]:
        return KNOWN, ZIPF

    def __rich__(self) -> Table:
        """A row for each way."""
        share = statistics.median(self.hit_shares)
        table = Table(
            title=f"reviews, {self.scenario['connections']} connections, "
            f"{self.scenario['rounds']} round(s), {self.errors} error(s)",
            title_justify="left",
            caption=f"Zipf {self.scenario['exponent']:g} over {self.scenario['distinct']:,} texts,"
            f" from an empty cache: {share:.0%} known. The goal for known answers is {GOAL:g} x.",
            caption_justify="left",
        )
        for name in ("answers", "texts/s", "low-high", "computed is 1", "low-high"):
            table.add_column(name, justify="left" if name == "answers" else "right")
        for way, rates in self.rates.items():
            times = self.times(way)
            table.add_row(
                way,
                f"{statistics.median(rates):.1f}",
                f"{min(rates):.1f}-{max(rates):.1f}",
                f"{statistics.median(times):.2f} x",
                f"{min(times):.2f}-{max(times):.2f}",
            )
        return table


def run_cache(options: CacheBenchOptions) -> CacheRecord:
    """Serve, load, stop, and write the record. Raises `BenchmarkError` with one sentence."""
    reviews = WORKLOADS["reviews"](options.distinct, options.seed)
    some = call_bodies(reviews[:_KNOWN_TEXTS])
    draws = zipf(reviews, 2 * len(reviews), options.seed, exponent=options.exponent)
    drawn = _known(call_bodies(draws))  # as many as a load can need
    runs: dict[str, list[WireRun]] = {COMPUTED: [], KNOWN: [], ZIPF: []}
    shares: list[float] = []
    rounds = track(range(options.rounds), "Rounds", console=Console(stderr=True), transient=True)
    more = ("--cache-mb", str(_CACHE_MB), "--cache-ttl-s", "86400")
    with serving(options.package, port=options.port, arguments=more) as server:
        digest = fetch_info(server.url)["package_digest"]
        for _ in rounds:
            runs[COMPUTED].append(_load(server, some, options))
            send_each_once(server.url, _known(some), connections=options.connections)
            runs[KNOWN].append(_load(server, _known(some), options))
            before = _clear(server.url)
            runs[ZIPF].append(_load(server, drawn, replace(options, warmup_s=0.0)))
            shares.append(_hit_share(before, _numbers(server.url)))
    record = CacheRecord(
        rates={way: [round(run.texts_per_s, 2) for run in seen] for way, seen in runs.items()},
        hit_shares=shares,
        errors=sum(sum(run.errors.values()) for seen in runs.values() for run in seen),
        scenario={
            "workload": "reviews",
            **{name: getattr(options, name) for name in ("connections", "rounds", "seconds")},
            **{name: getattr(options, name) for name in ("distinct", "exponent", "seed")},
        },
        package_digest=digest,
    )
    write_document(record.document(), options.output or default_path("cache"))
    return record


def _load(server: RunningServer, bodies: Sequence[Body], options: CacheBenchOptions) -> WireRun:
    return closed_loop(
        server.url,
        bodies,
        connections=options.connections,
        warmup_s=options.warmup_s,
        duration_s=options.seconds,
    )


def _known(bodies: Sequence[Body]) -> list[Body]:
    return [replace(body, fresh=False) for body in bodies]


def _clear(url: str) -> Mapping[str, float]:
    httpx.delete(f"{url}/cache", timeout=60.0, trust_env=False).raise_for_status()
    return _numbers(url)


def _numbers(url: str) -> Mapping[str, float]:
    numbers: Mapping[str, float] = fetch_info(url)["now"]
    return numbers


def _hit_share(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    grown = {name: after[name] - before[name] for name in before if name.startswith("cache_")}
    known = grown["cache_memory_hits"] + grown["cache_joined"]
    return round(known / ((known + grown["cache_misses"]) or 1.0), 4)
