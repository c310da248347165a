"""The backends behind servers: packages behind `miniml serve`, torch behind the prototype.

The same closed loop for all, one server at a time, started anew each round, labels checked first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.backends.inputs import Inputs
from benchmarks.backends.options import BackendsOptions
from benchmarks.backends.seen import Seen
from benchmarks.backends.variant import Variant
from benchmarks.errors import PeerDisagrees, PeerFailed
from benchmarks.options import PeersOptions
from benchmarks.peers.checking import check_labels
from benchmarks.peers.contract import PeerSettings
from benchmarks.peers.line_up import serve_package, serve_pipeline
from benchmarks.peers.measuring import PeerLoad, measure
from benchmarks.peers.peer import Peer
from benchmarks.peers.run import turns
from benchmarks.peers.running import running
from benchmarks.peers.runs import PeerRun
from benchmarks.server import RunningServer
from benchmarks.wire import Body
from benchmarks.workloads import call_bodies

_log = logging.getLogger(__name__)
NO_SERVER = "a graph without a server; `miniml bench peers` has servers of such graphs"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def measure_servers(  # noqa: PLR0913 - what a run is, and where its servers' logs go
    variants: Sequence[Variant],
    inputs: Inputs,
    options: BackendsOptions,
    *,
    labels: Sequence[str],
    seen: Seen,
    logs: Path,
) -> Iterator[str]:
    """Every variant in every round; what is to come next for people, and the rest into *seen*.

    labels: fp32's, of the texts that are checked.
    """
    checked = [row["text"] for row in inputs.checked]
    bodies = {
        name: call_bodies([row["text"] for row in rows]) for name, rows in inputs.workloads.items()
    }
    for round_, variant in turns(variants, options.rounds):
        yield f"Round {round_ + 1}: {variant.name} over HTTP"
        peer = server_of(
            variant, cores=inputs.cores, max_length=inputs.config.max_length, port=options.port
        )
        if variant.name in seen.http_missing:
            continue
        if peer is None:
            seen.miss_server(variant, NO_SERVER)
            continue
        try:
            with running(peer, port=options.port, logs=logs) as server:
                check_labels(peer.name, server.url, checked, labels)
                for run in _loads(peer, round_, server, bodies, options):
                    seen.http_runs.append(run)
                    _log.info("%s", run.line())
        except (PeerFailed, PeerDisagrees) as error:
            seen.miss_server(variant, str(error))


def server_of(variant: Variant, *, cores: int, max_length: int, port: int) -> Peer | None:
    """How *variant* is served; None when it is a graph without a server."""
    if variant.package is not None:
        return serve_package(
            variant.package, cores=cores, port=port, name=variant.name, on_gpu=variant.on_gpu
        )
    if not variant.backend.startswith("torch"):
        return None
    settings = PeerSettings(
        model=variant.model,
        max_length=max_length,
        cores=cores,
        device="cuda" if variant.on_gpu else "cpu",
        dtype=_DTYPES[variant.precision],
    )
    return serve_pipeline(settings, port=port, name=variant.name)


def _loads(
    peer: Peer,
    round_: int,
    server: RunningServer,
    bodies: Mapping[str, Sequence[Body]],
    options: BackendsOptions,
) -> Iterator[PeerRun]:
    closed = PeersOptions(
        connections=options.connections,
        duration_s=options.duration_s,
        warmup_s=options.warmup_s,
        search_steps=0,
    )
    for workload, each in bodies.items():
        load = PeerLoad(peer=peer.name, workload=workload, round=round_, bodies=each, goal_ms=0.0)
        yield from measure(server, load, closed)
