"""A `CostReport` for people: a table, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.cost.record import BASES

if TYPE_CHECKING:
    from benchmarks.cost.record import CostReport, Priced

# $/M: dollars a million texts.
HEADINGS = ("type", "GPU", "$/h", "texts/s", "how known", "$/M", "pays from")


def as_tables(report: CostReport) -> Group:
    """The table, then the sentences."""
    table = Table(title=title(report), title_justify="left")
    for place, heading in enumerate(HEADINGS):
        right = place in (2, 3, 5, 6)
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in report.rows:
        table.add_row(*cells(report, row))
    return Group(table, *(Text(said) for said in sentences(report)))


def title(report: CostReport) -> str:
    """What is priced."""
    return f"{report.finding.workload}, {report.finding.setting}; {100 * report.used:g} % used"


def cells(report: CostReport, row: Priced) -> tuple[str, ...]:
    """One row, as HEADINGS says."""
    instance, rate = row.capacity.instance, row.capacity.rate_per_s
    return (
        instance.name,
        instance.gpu,
        f"{instance.usd_per_hour:.4f}",
        "" if rate is None else f"{rate:,.0f}",
        row.capacity.basis,
        f"{row.fleet.full_usd:.2f}" if row.fleet else "",
        _pays(report, row),
    )


def _pays(report: CostReport, row: Priced) -> str:
    """Of a GPU's type: the load from which it is cheaper than the cheapest CPU."""
    if not row.capacity.instance.gpu or report.cheapest_cpu is None:
        return ""
    if row.fleet is None:
        return f"if {report.must_do_per_s(row):,.0f}/s"
    found = report.break_even(row)
    return f"{found.always_per_s:,.0f}/s" if found else "never"


def sentences(report: CostReport) -> Iterator[str]:
    """What the numbers rest on, and what they leave out."""
    said, cpu = report.certificate, report.cheapest_cpu
    yield (
        f"Measured: {report.finding.rate:,.1f} texts/s on {said.machine_line} ({said.name},"
        f" {said.recorded_at}, commit {said.commit or 'unknown'})."
    )
    if report.finding.goal_ms is None:
        yield "That is a closed loop's rate: it keeps no latency goal. Use a record of bench slo."
    yield "$/M: dollars a million texts, where instances have all the load that they take."
    used = dict.fromkeys(row.capacity.basis for row in report.rows)
    for basis in used:
        yield f"{basis}: {BASES[basis]}."
    if cpu:
        yield (
            f"pays from: the load in texts/s above which it stays cheaper than {cpu.name}, in whole"
            " instances; `if`: what one would have to do to cost the same a text."
        )
    prices = report.prices
    whence = "; ".join(f"{name}: {what}" for name, what in sorted(prices.sources.items()))
    yield f"Prices: {prices.region}, on demand, {prices.as_of} ({whence})."
    yield "Left out: disks, load balancers, the cluster itself, traffic, and all discounts."
