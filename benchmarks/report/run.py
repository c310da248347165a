"""`miniml bench report` and `miniml bench compare`: read records, write pages, say verdicts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.errors import ImpossibleOption, NoRecord, RecordsDiffer
from benchmarks.record import records_folder
from benchmarks.report.comparing import Comparison, compare_findings, differences
from benchmarks.report.evidence import Evidence, gather
from benchmarks.report.files import KEPT, curated, keep, records_in
from benchmarks.report.kinds import findings_of
from benchmarks.report.newest import newest_of
from benchmarks.report.options import CompareOptions, ReportOptions
from benchmarks.report.page import render_page
from benchmarks.report.records import Record, read_record
from benchmarks.report.results import render_results

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """What was written from what."""

    evidence: tuple[Evidence, ...]
    output: Path
    results: Path | None

    def document(self) -> dict[str, object]:
        """Names only; the numbers are in the files."""
        return {
            "records": [one.certificate.name for one in self.evidence],
            "output": str(self.output),
            "results": None if self.results is None else str(self.results),
        }

    def __rich__(self) -> Table:
        """A line a record."""
        table = Table(title=f"{self.output} reports on", title_justify="left")
        for name in ("record", "kind", "file", "recorded", "commit", "samples"):
            table.add_column(name, justify="right" if name == "samples" else "left")
        for one in self.evidence:
            said = one.certificate
            table.add_row(
                *(str(one.number), said.kind, said.name, said.recorded_at, said.commit),
                f"{one.found.samples:,}",
            )
        return table


def write_report(options: ReportOptions) -> ReportResult:
    """Write the page, and the tables when asked. Raises `NoRecord`, `ImpossibleOption`."""
    if not options.usd_per_hour > 0:
        raise ImpossibleOption(f"--usd-per-hour is {options.usd_per_hour:g}; it must be above 0.")
    evidence = gather(_records(options))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        render_page(evidence, usd_per_hour=options.usd_per_hour), encoding="utf-8"
    )
    if options.results:
        text = render_results(evidence, usd_per_hour=options.usd_per_hour)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(text, encoding="utf-8")
    return ReportResult(evidence=evidence, output=options.output, results=options.results)


def compare_records(options: CompareOptions) -> Comparison:
    """Compare. Raises `NoRecord`, or `RecordsDiffer` when the two say nothing about each other."""
    if not options.tolerance_percent >= 0:
        raise ImpossibleOption(
            f"--tolerance-percent is {options.tolerance_percent:g}; it cannot be below 0."
        )
    old, new = read_record(options.against), read_record(options.record)
    apart = differences(old.certificate, new.certificate)
    if apart and not options.anyway:
        raise RecordsDiffer(
            f"The two records do not compare ({'; '.join(apart)}); measure again on one machine"
            " with one scenario, or say --anyway."
        )
    tolerance = options.tolerance_percent / 100
    changes = compare_findings(findings_of(old), findings_of(new), tolerance=tolerance)
    return Comparison(
        old=old.certificate,
        new=new.certificate,
        changes=changes,
        tolerance=tolerance,
        apart=apart,
    )


def _records(options: ReportOptions) -> Sequence[Record]:
    given = [Path(name) for name in options.records]
    if options.newest:
        return _newest(options)
    if options.keep and not given:
        raise ImpossibleOption("--keep keeps the RECORDS that are named, and none is.")
    records = [read_record(path) for path in given]
    if given and not options.keep:
        return records
    for record in records:
        path = options.kept / f"{record.certificate.name}{KEPT}"
        keep(curated(record.document), path)
        _log.info("Kept %s (%.2f MB)", path, path.stat().st_size / 1e6)
    if not (kept := records_in(options.kept)):
        raise NoRecord(f"{options.kept} keeps no record; name some: miniml bench report a.json")
    return [read_record(path) for path in kept]


def _newest(options: ReportOptions) -> Sequence[Record]:
    if options.records or options.keep:
        raise ImpossibleOption("--newest finds its records itself; name none, and keep none.")
    if not (found := newest_of(map(read_record, sorted(records_folder().glob("*.json"))))):
        raise NoRecord(f"{records_folder()} holds no record; run a benchmark first.")
    return found
