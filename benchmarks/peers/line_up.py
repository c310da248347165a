"""Who is compared, and how each is started: a line a peer."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.errors import PeerUnsuited
from benchmarks.peers.assets import Assets
from benchmarks.peers.contract import PeerSettings

OURS, PROTOTYPE, PLAIN_FASTAPI, RAY_BATCH = "miniml", "prototype", "plain-fastapi", "ray-batch"
NAMES = (OURS, PROTOTYPE, PLAIN_FASTAPI, RAY_BATCH)
_UVICORN = (sys.executable, "-m", "uvicorn", "--factory", "--log-level", "warning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server. about: what it is and its threads, for people. command: serves on its port."""

    name: str
    about: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def check_names(names: Sequence[str]) -> None:
    """Raise `PeerUnsuited` for a name that is nobody's."""
    if strange := set(names) - set(NAMES):
        raise PeerUnsuited(
            f"There is no peer {min(strange)!r}; the peers are {', '.join(NAMES[1:])}."
        )


def line_up(
    assets: Assets, *, cores: int, port: int, names: Sequence[str] = ()
) -> tuple[Peer, ...]:
    """Ours and the peers of *names* (default: all), each on *cores* cores and the same port."""
    everybody = (
        _ours(assets, cores, port),
        _prototype(assets, cores, port),
        _plain_fastapi(assets, cores, port),
        _ray_batch(assets, cores, port),
    )
    return tuple(peer for peer in everybody if not names or peer.name in {OURS, *names})


def _ours(assets: Assets, cores: int, port: int) -> Peer:
    serve = (sys.executable, "-m", "miniml", "serve", str(assets.package), "--port", str(port))
    return Peer(
        name=OURS,
        about=f"miniml serve: the exported package, {cores} lane(s) of 1 thread",
        command=(*serve, "--lanes", str(cores), "--threads", "1"),
    )


def _prototype(assets: Assets, cores: int, port: int) -> Peer:
    settings = PeerSettings(model=assets.checkpoint, max_length=assets.max_length, cores=cores)
    return Peer(
        name=PROTOTYPE,
        about=f"FastAPI, transformers pipeline, torch fp32: 1 process, {cores} torch thread(s)",
        command=(*_UVICORN, "benchmarks.peers.prototype:create_app", "--port", str(port)),
        environment=settings.environment(),
    )


def _plain_fastapi(assets: Assets, cores: int, port: int) -> Peer:
    settings = PeerSettings(model=assets.quantized, max_length=assets.max_length, cores=cores)
    application = (*_UVICORN, "benchmarks.peers.plain_fastapi:create_app")
    return Peer(
        name=PLAIN_FASTAPI,
        about=f"FastAPI, ONNX Runtime int8, no batching: {cores} worker(s) of 1 thread",
        command=(*application, "--workers", str(cores), "--port", str(port)),
        environment=settings.environment(),
    )


def _ray_batch(assets: Assets, cores: int, port: int) -> Peer:
    settings = PeerSettings(model=assets.quantized, max_length=assets.max_length, cores=cores)
    return Peer(
        name=RAY_BATCH,
        about=f"Ray Serve, @serve.batch, ONNX Runtime int8: 1 replica, {cores} ONNX thread(s)",
        command=(sys.executable, "-m", "benchmarks.peers.ray_batch", str(port)),
        # A token of its own closes Ray's ports to others.
        environment={
            **settings.environment(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
