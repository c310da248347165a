"""One peer that runs, loaded: a closed loop, then the search for the highest rate in its goal.

Knows a URL, the process behind it and bodies; the client is `benchmarks.wire`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.bisection import next_rate
from benchmarks.errors import PeerFailed
from benchmarks.options import PeersOptions
from benchmarks.peers.runs import PeerRun, ServerCost
from benchmarks.processes import tree_cpu_s, tree_pss_bytes
from benchmarks.server import RunningServer
from benchmarks.wire import Body, WireRun, closed_loop, open_loop

_START_SHARE = 0.8  # of the closed loop's rate: near where a sound server leaves its goal


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLoad:
    """One workload for one peer. bodies: of a POST to *path*, one text each. goal_ms: of the p99."""

    peer: str
    workload: str
    round: int
    bodies: Sequence[Body]
    goal_ms: float
    path: str = "/predict"

    def run(self, wire: WireRun, *, rate_per_s: float | None = None) -> PeerRun:
        """*wire*, by the name of this load."""
        return PeerRun(
            peer=self.peer,
            workload=self.workload,
            round=self.round,
            rate_per_s=rate_per_s,
            wire=wire,
        )


def measure(server: RunningServer, load: PeerLoad, options: PeersOptions) -> Iterator[PeerRun]:
    """The closed loop with what it cost the server, then each rate tried, as they end.

    Raises `PeerFailed` when the closed loop got no answer.
    """
    closed = _closed(server, load, options)
    yield closed
    tried: list[PeerRun] = []
    while len(tried) < options.search_steps:
        rate_per_s = next_rate(
            [run.tried(load.goal_ms) for run in tried],
            start_per_s=_START_SHARE * closed.texts_per_s,
        )
        if rate_per_s is None:
            return
        wire = open_loop(
            server.url,
            load.bodies,
            rate_per_s=rate_per_s,
            warmup_s=options.warmup_s,
            duration_s=options.search_s,
            seed=options.seed,
            path=load.path,
        )
        tried.append(load.run(wire, rate_per_s=rate_per_s))
        yield tried[-1]


def _closed(server: RunningServer, load: PeerLoad, options: PeersOptions) -> PeerRun:
    before_s = tree_cpu_s(server.pid)
    wire = closed_loop(
        server.url,
        load.bodies,
        connections=options.connections,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        path=load.path,
    )
    if not wire.latencies_ms:
        raise PeerFailed(
            f"{load.peer} answered none of {len(wire.shots)} requests within {options.duration_s:g}"
            " s with 200; is --duration-s long enough?"
        )
    cpu_s, pss_bytes = tree_cpu_s(server.pid) - before_s, tree_pss_bytes(server.pid)
    cost = ServerCost(cpu_s=cpu_s, pss_bytes=pss_bytes) if pss_bytes else None
    return replace(load.run(wire), cost=cost)
