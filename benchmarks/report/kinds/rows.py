"""Sample rows as load clients write them, as a `Trial`: shared by the kinds that hold such rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.findings import Trial


def trial_of(
    run: Mapping[str, Any],
    *,
    round_: int = 0,
    rate_per_s: float | None = None,
    held: bool | None = None,
) -> Trial:
    """*run*: warmup_s, duration_s, summary, and samples that begin with sent_s, latency_ms, status.

    texts/s is the run's own: it counts what was sent in the warm-up and answered in the window.
    """
    rows = run["samples"]
    return Trial(
        round=round_,
        rate_per_s=rate_per_s,
        begin_s=run["warmup_s"],
        duration_s=run["duration_s"],
        texts_per_s=run["summary"]["texts_per_s"],
        sent_s=tuple(row[0] for row in rows),
        latencies_ms=tuple(row[1] for row in rows),
        statuses=tuple(int(row[2]) for row in rows),
        held=held,
    )
