"""Whether a run measured its client instead of the server. Pure."""

from __future__ import annotations

from benchmarks.wire.shots import WireRun

# A client that takes nearly all of a core sends later than it means to.
MOST_CORE_SHARE = 0.85
# A clock late by less is lost in what a server takes; beyond, the tail may be the client's own.
MOST_LAG_MS, MOST_LAG_SHARE = 5.0, 0.1
MOST_RATE_ERROR = 0.02
_ROUNDING = 0.51  # a schedule holds a whole number of requests


def client_fault(run: WireRun) -> str:
    """Why the client may be what was measured; empty when it was not."""
    if run.client_core_share > MOST_CORE_SHARE:
        return (
            f"the client took {run.client_core_share:.2f} of a core,"
            f" {MOST_CORE_SHARE:g} being the most that leaves it in time"
        )
    tail_ms = run.percentile_ms(99) if run.latencies_ms else 0.0
    most_ms = max(MOST_LAG_MS, MOST_LAG_SHARE * tail_ms)
    if run.client_lag_ms > most_ms:
        return (
            f"the client's clock was late by {run.client_lag_ms:.0f} ms (p99),"
            f" {most_ms:.0f} being the most"
        )
    return ""


def rate_fault(run: WireRun, asked_per_s: float) -> str:
    """How the rate that went out missed the one asked for by more than 2 %; empty when it did not.

    One request more or less is no miss: it may be due just before an edge and go out after it.
    """
    off = abs(run.sent_per_s - asked_per_s) * run.duration_s
    if off <= max(MOST_RATE_ERROR * asked_per_s * run.duration_s, 1.0 + _ROUNDING):
        return ""
    return f"{run.sent_per_s:.1f} requests/s went out where {asked_per_s:.1f} were asked for"
