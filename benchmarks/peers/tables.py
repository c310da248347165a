"""A `PeersRecord` for people: medians; range is from the slowest to the fastest round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from benchmarks.peers.goals import RATE_GOALS, TEXTS_GOALS
from benchmarks.peers.line_up import OURS

if TYPE_CHECKING:
    from benchmarks.peers.record import PeersRecord


def peers_table(record: PeersRecord) -> Table:
    """Who was compared, and whether they answer alike."""
    cores = record.scenario["cores"]
    table = Table(
        title=f"{record.precision} package {record.package_digest[:12]}, {cores} core(s) each,"
        " shared with the client",
        title_justify="left",
        caption=f"{record.scenario['rounds']} round(s); one server at a time, started anew in each."
        f" Seed {record.scenario['seed']}.",
        caption_justify="left",
    )
    table.add_column("peer")
    table.add_column("what it is", overflow="fold")
    table.add_column("label of fp32", justify="right")
    for name, about in record.peers.items():
        checks = record.agreement.get(name, ())
        asked = sum(check.asked for check in checks)
        share = f"{sum(check.agreed for check in checks) / asked:.1%}" if asked else "-"
        table.add_row(name, Text(" ".join(filter(None, (about, told(record, name))))), share)
    for name in (name for name in record.missing if name not in record.peers):
        table.add_row(name, Text(told(record, name)), "-")
    return table


def told(record: PeersRecord, name: str) -> str:
    """Why *name* was not measured, or not to the end; empty when it was."""
    reason = record.missing.get(name)
    return f"({reason})" if reason else ""


def closed_table(record: PeersRecord, workload: str) -> Table:
    """Texts/s of each peer, how many times it ours is, and the ratio that is the goal."""
    table = _table(
        f"{workload}: closed loop of {record.scenario['connections']} connections",
        *("texts/s", "range", "p50 ms", "p99 ms", "ours is", "goal"),
    )
    table.caption = _warning(record, workload)
    for peer in record.peers:
        found = record.summary(peer, workload)
        table.add_row(
            peer,
            _number(found["texts_per_s"]),
            _spread([run.texts_per_s for run in record.closed(peer, workload)]),
            _number(found["p50_ms"]),
            _number(found["p99_ms"]),
            *_ratio(peer, found["times_texts_per_s"], TEXTS_GOALS.get(workload, {})),
        )
    return table


def rate_table(record: PeersRecord, workload: str) -> Table:
    """The highest rate within the goal of each peer, how many times it ours is, and the goal."""
    goal_ms = record.goals_ms[workload]
    table = _table(
        f"{workload}: highest rate with p99 within {goal_ms:g} ms and no error",
        *("texts/s", "range", "ours is", "goal"),
    )
    for peer in record.peers:
        found = record.summary(peer, workload)
        table.add_row(
            peer,
            _number(found["rate_in_goal_per_s"]),
            _spread(record.rates(peer, workload)),
            *_ratio(peer, found["times_rate_in_goal"], RATE_GOALS.get(workload, {})),
        )
    return table


def cost_table(record: PeersRecord) -> Table:
    """CPU time a request and memory of each peer's processes, and how many times ours that is."""
    headings = [h for name in record.goals_ms for h in (f"{name}, CPU ms", "x ours")]
    table = _table("What a request costs all of a server's processes", *headings, "memory MB")
    table.caption = "In the closed loops; memory after the load, shared pages counted once."
    for peer in record.peers:
        found = [record.summary(peer, workload) for workload in record.goals_ms]
        cells = [
            cell
            for one in found
            for cell in (
                _number(one["server_cpu_ms_per_request"]),
                "" if peer == OURS else _number(one["times_server_cpu"]),
            )
        ]
        memory = max((mb for one in found if (mb := one["server_memory_mb"])), default=None)
        table.add_row(peer, *cells, "-" if memory is None else f"{memory:.0f}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("peer")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _warning(record: PeersRecord, workload: str) -> str | None:
    summaries = {peer: record.summary(peer, workload) for peer in record.peers}
    told = [
        f"{peer}: {found[key]:.0f} {what}"
        for key, what in (("errors", "error(s)"), ("client_bound_runs", "run(s) client-bound"))
        for peer, found in summaries.items()
        if found[key]
    ]
    return "; ".join(told) or None


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f}-{max(values):.1f}" if len(values) > 1 else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _ratio(peer: str, times: float | None, goals: Mapping[str, float]) -> tuple[str, str]:
    if peer == OURS:
        return "", ""
    goal = f"{goals[peer]:g} x" if peer in goals else ""
    return ("-" if times is None else f"{times:.2f} x"), goal
