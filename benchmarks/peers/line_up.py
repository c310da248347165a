"""Who is compared, and how each is started: a line a peer."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import PeerUnsuited
from benchmarks.peers.apart import APART
from benchmarks.peers.assets import Assets
from benchmarks.peers.contract import PeerSettings
from benchmarks.peers.peer import Peer

OURS, PROTOTYPE, PLAIN_FASTAPI, RAY_BATCH = "miniml", "prototype", "plain-fastapi", "ray-batch"
HERE = (OURS, PROTOTYPE, PLAIN_FASTAPI, RAY_BATCH)  # in the environment this runs in
NAMES = (*HERE, *APART)
_UVICORN = (sys.executable, "-m", "uvicorn", "--factory", "--log-level", "warning")


def check_names(names: Sequence[str]) -> None:
    """Raise `PeerUnsuited` for a name that is nobody's."""
    if strange := set(names) - set(NAMES):
        raise PeerUnsuited(
            f"There is no peer {min(strange)!r}; the peers are {', '.join(NAMES[1:])}."
        )


def chosen_apart(names: Sequence[str]) -> list[str]:
    """Those of *names* (default: of all) that want an environment of their own."""
    return [name for name in APART if not names or name in names]


def line_up(
    assets: Assets,
    *,
    cores: int,
    port: int,
    names: Sequence[str] = (),
    environments: Mapping[str, Path] | None = None,
) -> tuple[Peer, ...]:
    """Ours and the peers of *names* (default: all), each on *cores* cores and the same port.

    environments: name -> folder; whoever wants one of its own and has none here is left out.
    """
    everybody = (
        serve_package(assets.package, cores=cores, port=port),
        serve_pipeline(
            PeerSettings(model=assets.checkpoint, max_length=assets.max_length, cores=cores),
            port=port,
        ),
        _plain_fastapi(assets, cores, port),
        _ray_batch(assets, cores, port),
        *(APART[name](assets, cores, port, path) for name, path in (environments or {}).items()),
    )
    return tuple(peer for peer in everybody if not names or peer.name in {OURS, *names})


def serve_package(
    package: Path, *, cores: int, port: int, name: str = OURS, on_gpu: bool = False
) -> Peer:
    """A package behind `miniml serve`: a lane a core, or as it sees fit on a GPU."""
    serve = (sys.executable, "-m", "miniml", "serve", str(package), "--port", str(port))
    lanes = () if on_gpu else ("--lanes", str(cores), "--threads", "1")
    # The others' queues have no bound; ours would refuse a slow model's closed loop.
    patience = ("--max-queue-ms", "60000")
    how = "on a GPU" if on_gpu else f"{cores} lane(s) of 1 thread"
    about = f"miniml serve: the exported package, {how}, a queue of a minute"
    return Peer(name=name, about=about, command=(*serve, *lanes, *patience), model=package)


def serve_pipeline(settings: PeerSettings, *, port: int, name: str = PROTOTYPE) -> Peer:
    """A checkpoint behind the prototype."""
    kind = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}[settings.dtype]
    threads = f"1 process, {settings.cores} torch thread(s)"
    return Peer(
        name=name,
        about=f"FastAPI, transformers pipeline, torch {kind}: {threads}",
        command=(*_UVICORN, "benchmarks.peers.prototype:create_app", "--port", str(port)),
        model=settings.model,
        environment=settings.environment(),
    )


def _plain_fastapi(assets: Assets, cores: int, port: int) -> Peer:
    settings = PeerSettings(model=assets.quantized, max_length=assets.max_length, cores=cores)
    application = (*_UVICORN, "benchmarks.peers.plain_fastapi:create_app")
    return Peer(
        name=PLAIN_FASTAPI,
        about=f"FastAPI, ONNX Runtime int8, no batching: {cores} worker(s) of 1 thread",
        command=(*application, "--workers", str(cores), "--port", str(port)),
        model=settings.model,
        environment=settings.environment(),
    )


def _ray_batch(assets: Assets, cores: int, port: int) -> Peer:
    settings = PeerSettings(model=assets.quantized, max_length=assets.max_length, cores=cores)
    return Peer(
        name=RAY_BATCH,
        about=f"Ray Serve, @serve.batch, ONNX Runtime int8: 1 replica, {cores} ONNX thread(s)",
        command=(sys.executable, "-m", "benchmarks.peers.ray_batch", str(port)),
        model=settings.model,
        # A token of its own closes Ray's ports to others.
        environment={
            **settings.environment(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
