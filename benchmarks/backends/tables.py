"""A `BackendsRecord` for people: medians; range is from the slowest to the fastest round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.backends.measures import Weights, ceiling_texts_per_s, roofs
from benchmarks.geometry import Geometry
from benchmarks.record import percentile

if TYPE_CHECKING:
    from benchmarks.backends.record import BackendsRecord
    from benchmarks.peers.runs import PeerRun


def backends_tables(record: BackendsRecord) -> Group:
    """Answers, then speed on each workload, then servers, then all cells."""
    parts: list[Table] = [answers_table(record)]
    parts += [speed_table(record, workload) for workload in record.weights]
    if record.http_runs or record.http_missing:
        parts += [http_table(record, workload) for workload in record.weights]
    parts.append(grid_table(record))
    spaced: list[Table | str] = []
    for part in parts:
        spaced += [part, ""]
    return Group(*spaced[:-1])


def ceiling_lines(
    peaks: Mapping[str, Any],
    geometry: Geometry,
    weights: Mapping[str, Weights],
    batches: Sequence[int],
) -> Iterator[str]:
    """What the hardware allows: its peaks, then texts/s of each workload at the largest batch."""
    for name, peak in peaks.items():
        rates = ", ".join(f"{key} {gflops:.0f}" for key, gflops in peak["gflops"].items())
        threads = f", {peak['threads']} thread(s)" if "threads" in peak else ""
        yield f"{name}{threads}: at most {rates} GFLOP/s; memory {peak['gb_per_s']:.1f} GB/s"
        for workload, shares in weights.items():
            tops = {
                precision: ceiling_texts_per_s(geometry, shares, roof, batch=max(batches))
                for precision, roof in roofs(peak).items()
            }
            said = ", ".join(f"{precision} {top:.0f}" for precision, top in tops.items())
            yield f"  so {workload}, texts/s: at most {said}"


def answers_table(record: BackendsRecord) -> Table:
    """Every variant: how it answers, or why it could not run."""
    table = _table("Answers beside fp32's: the same label, alone and in batches of mixed lengths")
    for heading in ("alone", "together", "max |dp|", "MB"):
        table.add_column(heading, justify="right")
    for variant in record.variants:
        if reason := record.missing.get(variant.name):
            table.add_row(_with_reason(variant.name, reason), "-", "-", "-", "-")
            continue
        if (found := record.answers.get(variant.name)) is None:  # interrupted before its turn
            table.add_row(variant.name, "-", "-", "-", "-")
            continue
        memory = record.peak_rss_bytes(variant.name)
        table.add_row(
            variant.name,
            f"{found.alone / found.asked:.1%}",
            f"{found.together / found.asked:.1%}",
            f"{found.max_probability_gap:.4f}",
            "-" if memory is None else f"{memory / 1e6:.0f}",
        )
    return table


def speed_table(record: BackendsRecord, workload: str) -> Table:
    """Texts/s of each variant that ran, on its best layout and batch size."""
    cores = record.scenario["cores"]
    table = _table(f"{workload}: texts/s without a server, {cores} core(s) each")
    for heading in ("lanes x thr.", "batch", "texts/s", "range", "of peak", "one text ms"):
        table.add_column(heading, justify="right")
    for variant in record.variants:
        one = record.fastest(workload).get(variant.name)
        if one is None:
            table.add_row(variant.name, *("-",) * 6)
            continue
        ceiling = record.ceiling(variant, workload, one.batch)
        table.add_row(
            variant.name,
            str(one.layout),
            str(one.batch),
            f"{one.rate:.1f}",
            _spread(one.rates),
            "-" if ceiling is None else f"{one.rate / ceiling:.0%}",
            f"{statistics.median(one.call_ms):.1f}",
        )
    return table


def http_table(record: BackendsRecord, workload: str) -> Table:
    """The same behind servers, in a closed loop."""
    connections = record.scenario["connections"]
    table = _table(f"{workload}: over HTTP, closed loop of {connections} connections")
    headings = ("texts/s", "range", "p50 ms", "p99 ms", "errors", "CPU ms", "MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for variant in record.variants:
        runs = [r for r in record.http_runs if (r.peer, r.workload) == (variant.name, workload)]
        if not runs:
            reason = record.missing.get(variant.name) or record.http_missing.get(variant.name, "")
            table.add_row(_with_reason(variant.name, reason), *("-",) * len(headings))
            continue
        rates = [run.texts_per_s for run in runs]
        latencies_ms = [ms for run in runs for ms in run.wire.latencies_ms]
        table.add_row(
            variant.name,
            f"{statistics.median(rates):.1f}",
            _spread(rates),
            *(f"{percentile(latencies_ms, percent):.1f}" for percent in (50, 99)),
            str(sum(run.errors for run in runs)),
            *_costs(runs),
        )
    return table


def grid_table(record: BackendsRecord) -> Table:
    """Milliseconds of a batch of texts of equal length, the median of the rounds."""
    lengths = sorted({length for weights in record.weights.values() for length in weights})
    table = _table("Milliseconds of a batch, all lanes busy, by tokens of its texts")
    for heading in ("lanes x thr.", "batch", *map(str, lengths)):
        table.add_column(heading, justify="right")
    groups: dict[tuple[str, str], list[dict[tuple[int, int], float]]] = {}
    for run in record.runs:
        groups.setdefault((run.variant, str(run.layout)), []).append(dict(run.cells))
    for (name, layout), rounds in groups.items():
        for batch in record.batches:
            cells = (statistics.median(r[batch, length] for r in rounds) for length in lengths)
            table.add_row(name, layout, str(batch), *(f"{ms:.1f}" for ms in cells))
    return table


def _spread(rates: Sequence[float]) -> str:
    return f"{min(rates):.1f}-{max(rates):.1f}" if len(rates) > 1 else "-"


def _costs(runs: Sequence[PeerRun]) -> tuple[str, str]:
    """CPU ms a request and memory of all the server's processes, where they were looked at."""
    cpu_ms = [ms for run in runs if (ms := run.server_cpu_ms_per_request) is not None]
    memory = max((run.cost.pss_bytes for run in runs if run.cost), default=None)
    if not cpu_ms or memory is None:
        return "-", "-"
    return f"{statistics.median(cpu_ms):.1f}", f"{memory / 1e6:.0f}"


def _with_reason(name: str, reason: str) -> Text:
    # Not as markup: it would swallow the extra in `pip install 'miniml[openvino]'`.
    return Text.assemble(name, *([("\n  " + reason, "dim")] if reason else []))


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("backend", overflow="fold")
    return table
