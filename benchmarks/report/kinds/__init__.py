"""A record of each kind as `Findings`: strict in what is used, deaf to what is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.errors import NoRecord
from benchmarks.report.findings import Findings
from benchmarks.report.kinds.backends import backends_findings
from benchmarks.report.kinds.cache import cache_findings
from benchmarks.report.kinds.core import core_findings
from benchmarks.report.kinds.engine import engine_findings
from benchmarks.report.kinds.load import load_findings
from benchmarks.report.kinds.offline import offline_findings
from benchmarks.report.kinds.peers import peers_findings
from benchmarks.report.kinds.planner import planner_findings
from benchmarks.report.kinds.slo import slo_findings
from benchmarks.report.kinds.soak import soak_findings
from benchmarks.report.kinds.tune import tune_findings
from benchmarks.report.records import Record

Reader = Callable[[Mapping[str, Any]], Findings]
READERS: Mapping[str, Reader] = {
    "backends": backends_findings,
    "core": core_findings,
    "cache": cache_findings,
    "engine": engine_findings,
    "load": load_findings,
    "offline": offline_findings,
    "peers": peers_findings,
    "planner": planner_findings,
    "scaling": lambda _: Findings(),  # its own page shows it
    "slo": slo_findings,
    "soak": soak_findings,
    "tune": tune_findings,
}


def findings_of(record: Record) -> Findings:
    """What *record* shows. Raises `NoRecord` when its document is not as its kind's should be."""
    name, kind = record.certificate.name, record.certificate.kind
    try:
        return READERS[kind](record.document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NoRecord(
            f"{name} is not a {kind} record as this miniml writes them"
            f" ({type(error).__name__}: {error}); run the benchmark again."
        ) from error
