"""What one load of one peer showed, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bisection import Tried
from benchmarks.wire import Shot, WireRun

# One client process on one core: above this share it is the client that is measured.
_MOST_CLIENT_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCost:
    """What a load took of all of a server's processes. cpu_s: warm-up included.

    pss_bytes: their memory right after it; pages that they share count once.
    """

    cpu_s: float
    pss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """One load of one peer. rate_per_s: asked for, in an open loop; None in a closed one.

    cost: to the server, where it was looked at: in closed loops, on Linux.
    """

    peer: str
    workload: str
    round: int
    rate_per_s: float | None
    wire: WireRun
    cost: ServerCost | None = None

    @property
    def texts_per_s(self) -> float:
        """Answered with 200."""
        return self.wire.texts_per_s

    @property
    def errors(self) -> int:
        """Requests that were not."""
        return sum(self.wire.errors.values())

    @property
    def client_cpu_share(self) -> float:
        """Of one core."""
        return self.wire.client_cpu_s / self.wire.load_s

    @property
    def client_bound(self) -> bool:
        """Whether the client had no core left, so that the run says little of the peer."""
        return self.client_cpu_share > _MOST_CLIENT_SHARE

    @property
    def server_cpu_ms_per_request(self) -> float | None:
        """CPU time of all the server's processes, warm-up included on both sides."""
        if self.cost is None or not self.wire.requests:
            return None
        return self.cost.cpu_s * 1e3 / self.wire.requests

    def percentile_ms(self, percent: float) -> float:
        """Of the answers; infinite when there was none."""
        return self.wire.percentile_ms(percent) if self.wire.latencies_ms else float("inf")

    def tried(self, goal_ms: float) -> Tried:
        """Whether the rate held: p99 within *goal_ms*, no error, and the client not in the way."""
        assert self.rate_per_s is not None, "a closed loop tries no rate"
        quick = self.percentile_ms(99) <= goal_ms
        held = quick and not self.errors and not self.client_bound
        return Tried(rate_per_s=self.rate_per_s, held=held)

    def line(self) -> str:
        """What it showed, for people who wait."""
        asked = "" if self.rate_per_s is None else f" of {self.rate_per_s:.0f} asked"
        cpu_ms = self.server_cpu_ms_per_request
        notes = [] if cpu_ms is None else [f"{cpu_ms:.1f} CPU ms a request"]
        notes += [f"{self.errors} error(s)"] if self.errors else []
        notes += ["client-bound"] if self.client_bound else []
        return (
            f"round {self.round + 1} {self.peer} {self.workload}: {self.texts_per_s:.0f}{asked}"
            f" texts/s, p50 {self.percentile_ms(50):.0f} ms, p99 {self.percentile_ms(99):.0f} ms"
            f"{''.join(f', {note}' for note in notes)}"
        )

    def document(self) -> dict[str, Any]:
        """All of it; samples as [sent_s, latency_ms, status] rows. requests: warm-up included."""
        return {
            "peer": self.peer,
            "workload": self.workload,
            "round": self.round,
            "rate_per_s": self.rate_per_s,
            "warmup_s": self.wire.warmup_s,
            "duration_s": self.wire.duration_s,
            "load_s": self.wire.load_s,
            "client_cpu_s": self.wire.client_cpu_s,
            "requests": self.wire.requests,
            "server_cpu_s": None if self.cost is None else round(self.cost.cpu_s, 3),
            "server_pss_bytes": None if self.cost is None else self.cost.pss_bytes,
            "samples": _rows(self.wire.shots),
            "answered_after_warmup": _rows(self.wire.early),
        }


def _rows(shots: Sequence[Shot]) -> list[list[float]]:
    return [[round(shot.sent_s, 4), round(shot.latency_ms, 2), shot.status] for shot in shots]
