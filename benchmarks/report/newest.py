"""Which of many records are the ones to look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.report.records import Record


def newest_of(records: Iterable[Record]) -> list[Record]:
    """The newest of each kind, loop and workload, of the package measured last; oldest first.

    One that was cut short only where there is no whole one; none that names no package, as a tuning
    without a winner.
    """
    named = (record for record in records if record.certificate.package_digest)
    found = sorted(named, key=lambda record: record.certificate.recorded_at)
    last = found[-1].certificate.package_digest if found else ""
    ours = [record for record in found if record.certificate.package_digest == last]
    ours.sort(key=lambda record: not record.certificate.partial)  # stable: by time among equals
    chosen = {_subject(record): record for record in ours}
    return sorted(chosen.values(), key=lambda record: record.certificate.recorded_at)


def _subject(record: Record) -> tuple[object, ...]:
    said = record.certificate
    return said.kind, record.document.get("loop"), said.scenario.get("workload")
