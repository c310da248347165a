"""A `SoakRecord` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from benchmarks.soak.growth import LEAST, MOST_GROWTH, fifths

if TYPE_CHECKING:
    from benchmarks.soak.record import MemorySeries, SoakRecord

HEADINGS = ("process", "first fifth, MB", "last fifth, MB", "growth", "MB an hour", "PSS, MB")
_PERCENTS = (50, 95, 99, 100)


def as_tables(record: SoakRecord) -> Group:
    """Memory by process, and what it means under it."""
    table = Table(
        title=f"{record.scenario['minutes']:g} min at {record.rate_per_s:.1f} requests/s,"
        f" {record.scenario['share']:.0%} of {record.capacity_per_s:.1f}",
        title_justify="left",
        caption="\n".join(sentences(record)),
        caption_justify="left",
    )
    for name in HEADINGS:
        table.add_column(name, justify="left" if name == "process" else "right")
    for row in memory_rows(record):
        table.add_row(*row)
    return Group(table)


def memory_rows(record: SoakRecord) -> list[tuple[str, ...]]:
    """A row for all together, and for each role."""
    return [_row(one, record.pss[one.name]) for one in record.series]


def _row(one: MemorySeries, pss: MemorySeries) -> tuple[str, ...]:
    """Name, both medians of own memory, growth, slope; and PSS at last."""
    if len(one.mb) < LEAST:
        return (one.name, *["-"] * (len(HEADINGS) - 1))
    first, last = fifths(one.mb)
    grown, slope = one.growth, one.slope_mb_per_hour
    return (
        one.name,
        f"{first:.1f}",
        f"{last:.1f}",
        "-" if grown is None else f"{grown:+.2%}",
        "-" if slope is None else f"{slope:+.1f}",
        f"{fifths(pss.mb)[1]:.1f}",
    )


def sentences(record: SoakRecord) -> list[str]:
    """Errors, latency, and what the memory did."""
    run, result = record.run, record.result()
    said = [f"{record.errors} of {len(run.shots):,} requests were not answered with 200."]
    if run.latencies_ms:
        tail = ", ".join(f"p{p} {run.percentile_ms(p):.1f}" for p in _PERCENTS)
        said.append(f"Latency, ms: {tail}. {record.known_share:.1%} of the texts were known.")
    if (grown := result["memory_growth"]) is not None:
        verdict = "within" if grown <= MOST_GROWTH else "beyond"
        said.append(
            f"Own memory: {grown:+.2%}, {verdict} the goal of {MOST_GROWTH:.0%}. PSS, which neighbours"
            f" move: {result['pss_growth'] or 0:+.2%}."
        )
    else:
        said.append(f"Too few looks at the memory to tell what grew; {LEAST} at least.")
    said += [f"Beware: {fault}." for fault in record.faults]
    return said + (["Interrupted: this is what was seen by then."] if run.interrupted else [])
