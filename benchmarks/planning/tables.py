"""A `PlannerRecord` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.record import percentile

if TYPE_CHECKING:
    from benchmarks.planning.record import PlannerRecord, PlannerRun

# (heading, key of the summary, digits)
COLUMNS = (
    ("texts/s", "texts_per_s", 0),
    ("useful", "useful_token_ratio", 3),
    ("p50 ms", "p50_ms", 0),
    ("p99 ms", "p99_ms", 0),
    ("queue p99 ms: longest tenth", "queue_p99_longest_tenth_ms", 0),
    ("rest", "queue_p99_rest_ms", 0),
    ("worst wait, own costs", "worst_wait_in_own_costs", 0),
)


def open_table(record: PlannerRecord, workload: str) -> Table:
    """Arrivals whatever happens, at each share of the ceiling; above 1 the line grows to the end."""
    ceiling = record.offline_texts_per_s[workload]
    table = _table(
        f"{workload}: {len(record.tokens[workload]):,} arrivals, open loop,"
        f" {record.scenario['lanes']} lanes; offline ceiling {ceiling:.0f} texts/s",
        "of ceiling",
    )
    last = None
    for run in record.of(workload, "open"):
        if run.share != last:
            table.add_section()
        shown = "" if run.share == last or run.share is None else f"{run.share:.2f}"
        table.add_row(shown, *_cells(record, run))
        last = run.share
    table.caption = "Each policy's parameter is the one of least p99 at that load, in hindsight."
    return table


def closed_table(record: PlannerRecord, workload: str) -> Table:
    """Callers who wait for their answer: the rate is a result."""
    table = _table(
        f"{workload}: closed loop, {record.scenario['callers']} callers,"
        f" {record.scenario['lanes']} lanes",
        "of ceiling",
    )
    for run in record.of(workload, "closed"):
        share = record.summary(run)["of_offline"]
        table.add_row(f"{share:.2f}", *_cells(record, run))
    table.caption = "Each policy's parameter is the one of most texts/s, in hindsight."
    return table


def decision_line(record: PlannerRecord) -> str:
    """What a decision costs."""
    found = "; ".join(
        f"{case}: median {percentile(times, 50):.2f} ms, p99 {percentile(times, 99):.2f} ms"
        for case, times in record.decisions.items()
    )
    waiting = record.scenario["decisions_waiting"]
    return f"One decision of ours, {waiting:,} texts waiting, CPU time here - {found}."


def named(run: PlannerRun) -> str:
    """The policy with its parameter."""
    return f"{run.policy} ({run.parameter})" if run.parameter else run.policy


def _cells(record: PlannerRecord, run: PlannerRun) -> list[str]:
    found = record.summary(run)
    return [named(run), *(f"{found[key]:.{digits}f}" for _, key, digits in COLUMNS)]


def _table(title: str, *first: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for heading in first:
        table.add_column(heading, justify="right")
    table.add_column("policy", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    return table
