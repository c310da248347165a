"""`miniml cost`: a record and a table of prices, put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from benchmarks.cost.options import CostOptions
from benchmarks.cost.page import write_page
from benchmarks.cost.prices import Instance, named_numbers, read_prices
from benchmarks.cost.record import Capacity, CostReport
from benchmarks.errors import ImpossibleOption, NoRecord
from benchmarks.record import default_path
from benchmarks.report.findings import Finding
from benchmarks.report.kinds import findings_of
from benchmarks.report.records import Certificate, Record, read_record

_log = logging.getLogger(__name__)
_DEMO = "results/demo-slo-queries-avx2.json.gz"


def run_cost(options: CostOptions) -> CostReport:
    """What texts cost, and a page of it. Raises `BenchmarkError` with one sentence."""
    if not 0 < options.utilisation_percent <= 100:  # noqa: PLR2004
        raise ImpossibleOption("--utilisation-percent must be above 0 and at most 100.")
    if options.at_least < 1:
        raise ImpossibleOption("--at-least must be 1 or more.")
    prices = read_prices(options.prices).with_prices(options.price)
    rates = named_numbers(options.gpu_rate, option="--gpu-rate")
    prices.refuse_unknown(rates, option="--gpu-rate")
    record = read_record(options.record or Path(str(files("benchmarks").joinpath(_DEMO))))
    finding = ours(record, options.workload)
    report = CostReport(
        certificate=record.certificate,
        finding=finding,
        prices=prices,
        capacities=[
            capacity(each, record.certificate, finding, rates) for each in prices.instances
        ],
        used=options.utilisation_percent / 100,
        at_least=options.at_least,
    )
    page = options.output or default_path("cost").with_suffix(".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    _log.info("The page is %s", write_page(report, page))
    return report


def ours(record: Record, workload: str | None) -> Finding:
    """What the record says miniml does: within a latency goal, else in a closed loop.

    Raises `NoRecord` where it says neither.
    """
    found = [
        finding
        for finding in findings_of(record).findings
        if finding.ours and finding.rate and workload in (None, finding.workload)
    ]
    kept = [finding for finding in found if finding.goal_ms is not None]
    closed = [finding for finding in found if finding.loop == "closed"]
    for each in (*kept, *closed):
        return each
    said = f" of the workload {workload!r}" if workload else ""
    raise NoRecord(
        f"{record.certificate.name} has no rate of miniml's server{said}; give a record of"
        " bench slo, peers, core or load."
    )


def capacity(
    instance: Instance, certificate: Certificate, finding: Finding, rates: Mapping[str, float]
) -> Capacity:
    """What one instance can do, and how that is known."""
    seen_on, rate = str(certificate.machine.get("gpu") or ""), finding.rate
    assert rate, "a finding without a rate was chosen; this is a bug"
    if instance.name in rates:
        return Capacity(instance=instance, rate_per_s=rates[instance.name], basis="given")
    if instance.gpu and instance.gpu in seen_on.split():
        return Capacity(instance=instance, rate_per_s=rate, basis="measured")
    if instance.gpu or seen_on:  # neither says anything of the other
        return Capacity(instance=instance, rate_per_s=None, basis="not measured")
    scaled = rate * instance.vcpus / int(certificate.machine["cores"])
    return Capacity(instance=instance, rate_per_s=scaled, basis="assumed")
