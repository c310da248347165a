"""`miniml top`: a live view of a server, from its metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

from serving.client import RemoteError, key_header
from serving.errors import ServingError
from serving.observing.drift import Drift
from serving.options import TopOptions

Values = Mapping[str, float]
_PERCENTS = (50, 95, 99)
_DRIFTS = {"miniml_drift": "psi", "miniml_drift_chance": "chance"}


class NoSuchPace(ServingError):
    """Looks must be some time apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a server's replicas had done by a moment, added up; buckets: seconds -> requests up to there.

    replicas: how many there are. drifts: of what -> the largest of any replica.
    """

    at_s: float
    sums: Values
    buckets: Mapping[float, float]
    replicas: int
    drifts: Mapping[str, Drift]


def top(options: TopOptions) -> None:
    """Show until interrupted. Raises `RemoteError` when the server does not answer."""
    if options.every_s <= 0:
        raise NoSuchPace(f"--every-s is {options.every_s:g}; give seconds above 0.")
    looks = count() if options.looks <= 0 else range(options.looks)
    headers = key_header()
    with httpx.Client(headers=headers, timeout=10.0, trust_env=False) as client:
        before = take_look(client, options.url)
        with Live(console=Console(stderr=True), auto_refresh=False) as live:
            for _ in looks:
                time.sleep(options.every_s)
                now = take_look(client, options.url)
                live.update(table_of(before, now, options.url), refresh=True)
                before = now


def take_look(client: httpx.Client, url: str) -> Look:
    """Ask for the metrics. Raises `RemoteError`."""
    address = f"{url.rstrip('/')}/metrics"
    try:
        response = client.get(address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(
            f"No answer from {url} ({error}).", hint="Is `miniml serve` running there?"
        ) from error
    if response.status_code != httpx.codes.OK:
        raise RemoteError(f"{address} answered with status {response.status_code}.")
    return read_look(response.text, at_s=time.monotonic())


def read_look(text: str, *, at_s: float) -> Look:
    """From the metrics of one replica or of several."""
    sums: dict[str, float] = {}
    buckets: dict[float, float] = {}
    replicas = set()
    drifts: dict[tuple[str, str], dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            replicas.add(sample.labels.get("replica", ""))
            name = sample.name
            if name == "miniml_requests_total":
                name = "answered" if sample.labels["status"] == "200" else "refused"
            if name == "miniml_request_seconds_bucket":
                edge = float(sample.labels["le"])
                buckets[edge] = buckets.get(edge, 0.0) + sample.value
            if name in _DRIFTS:
                whose = sample.labels["of"], sample.labels.get("replica", "")
                drifts.setdefault(whose, {})[_DRIFTS[name]] = sample.value
            sums[name] = sums.get(name, 0.0) + sample.value
    return Look(
        at_s=at_s,
        sums=sums,
        buckets=buckets,
        replicas=len(replicas),
        drifts=_largest({whose: Drift(**values) for whose, values in drifts.items()}),
    )


def _largest(drifts: Mapping[tuple[str, str], Drift]) -> dict[str, Drift]:
    """*drifts* by (of, replica) -> by of."""
    ascending = sorted(drifts.items(), key=lambda item: item[1].psi)
    return {of: found for (of, _), found in ascending}


def table_of(before: Look, now: Look, url: str) -> Table:
    """What was done between two looks, a row each."""
    took_s = now.at_s - before.at_s

    def grew(name: str) -> float:
        return max(0.0, now.sums.get(name, 0.0) - before.sums.get(name, 0.0))

    def share(part: float, whole: float) -> str:
        return f"{part / whole:.1%}" if whole else "-"

    hits = sum(
        grew(f"miniml_cache_{name}_total") for name in ("memory_hits", "redis_hits", "joined")
    )
    rows = {
        "requests/s": f"{grew('answered') / took_s:.1f}",
        "refused/s": f"{grew('refused') / took_s:.1f}",
        "texts/s": f"{grew('miniml_confidence_count') / took_s:.1f}",
        **{f"p{p} at most, ms": _percentile_ms(before, now, p) for p in _PERCENTS},
        "queued, ms": f"{1e3 * now.sums.get('miniml_queued_seconds', 0.0):.1f}",
        "texts a batch": _ratio(grew("miniml_texts_computed_total"), grew("miniml_batches_total")),
        "useful tokens": share(
            grew("miniml_useful_tokens_total"), grew("miniml_padded_tokens_total")
        ),
        "known answers": share(hits, hits + grew("miniml_cache_misses_total")),
        "cores busy with the model": f"{grew('miniml_lanes_cpu_seconds_total') / took_s:.2f}",
        **{f"drift of {of}": f"{d.psi:.3f}, {d.state}" for of, d in now.drifts.items()},
    }
    table = Table(
        title=f"{url}, {now.replicas} replica(s)", show_header=False, title_justify="left"
    )
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _percentile_ms(before: Look, now: Look, percent: float) -> str:
    """The upper edge of the bucket in which that percentile lies."""
    counts = {edge: seen - before.buckets.get(edge, 0.0) for edge, seen in now.buckets.items()}
    whole = max(counts.values(), default=0.0)
    if not whole:
        return "-"
    edge = min(edge for edge, seen in counts.items() if seen >= whole * percent / 100)
    return f"{edge * 1e3:g}"


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.1f}" if whole else "-"
