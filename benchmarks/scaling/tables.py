"""A `ScalingRecord` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from benchmarks.scaling.record import ScalingRecord

# (heading, key of the summary, digits)
COLUMNS = (
    ("p99 ms", "p99_wait_ms", 0),
    ("p99.9", "p999_wait_ms", 0),
    ("replica-s", "replica_s", 0),
    ("wasted", "wasted_s", 0),
    ("changes", "changes", 0),
)


def as_tables(record: ScalingRecord) -> Group:
    """A table a trace, and Ray's default over ours under it."""
    return Group(*(_table(record, place) for place in range(len(record.traces))))


def ratio_line(record: ScalingRecord, place: int) -> str:
    """Ray's default over ours, on the trace at *place*."""
    ratios = record.ratios(record.traces[place])
    return (
        f"Ray's default over ours: p99 wait {ratios['p99_wait_ms']:,g}, replica-seconds"
        f" {ratios['replica_s']:,g}, wasted {ratios['wasted_s']:,g}; above 1 ours is better."
    )


def _table(record: ScalingRecord, place: int) -> Table:
    trace = record.traces[place]
    table = Table(
        title=f"{trace.name}: at most {trace.load.max():,.0f} replicas' worth of work, simulated",
        title_justify="left",
        caption=ratio_line(record, place),
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for run in record.of(trace):
        found = run.summary()
        table.add_row(run.name, *(f"{found[key]:,.{digits}f}" for _, key, digits in COLUMNS))
    return table
