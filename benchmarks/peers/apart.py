"""Peers that bring libraries of their own, each in its environment: how each is started.

Their own commands and pages decide; batches are of 32 texts at most, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.peers.assets import Assets
from benchmarks.peers.codecs import BENTO, INFINITY, MLSERVER, MODEL_NAME
from benchmarks.peers.contract import PeerSettings
from benchmarks.peers.environments import REQUIREMENTS, pinned, python_of, sources_of
from benchmarks.peers.peer import Peer

_LOOPBACK = ("--host", "127.0.0.1")
_INT8 = "ONNX Runtime int8"
MakePeer = Callable[[Assets, int, int, Path], Peer]


def _litserve(assets: Assets, cores: int, port: int, folder: Path) -> Peer:
    return Peer(
        name="litserve",
        about=f"{_title('LitServe')}, batches, {_INT8}: 1 worker, {cores} ONNX thread(s)",
        command=(str(python_of(folder)), "-m", "benchmarks.peers.litserve_batch", str(port)),
        model=assets.quantized,
        environment=_environment(assets, cores, folder),
        folder=folder,
    )


def _bentoml(assets: Assets, cores: int, port: int, folder: Path) -> Peer:
    serve = (str(python_of(folder)), "-m", "bentoml", "serve")
    service = "benchmarks.peers.bento_batch:BentoBatched"
    return Peer(
        name="bentoml",
        about=f"{_title('BentoML')}, adaptive batching, {_INT8}: 1 worker, {cores} ONNX thread(s)",
        command=(*serve, service, *_LOOPBACK, "--port", str(port)),
        model=assets.quantized,
        environment={
            **_environment(assets, cores, folder),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        },
        codec=BENTO,
        folder=folder,
    )


def _mlserver(assets: Assets, cores: int, port: int, folder: Path) -> Peer:
    # A folder without settings files: all of them are in the environment.
    return Peer(
        name="mlserver",
        about=f"{_title('MLServer')}, adaptive batching, {_INT8}: 1 worker, {cores} ONNX thread(s)",
        command=(str(folder / "bin" / "mlserver"), "start", str(sources_of(folder))),
        model=assets.quantized,
        environment={
            **_environment(assets, cores, folder),
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": str(port),
            "MLSERVER_GRPC_PORT": "0",  # any that is free
            "MLSERVER_METRICS_ENDPOINT": "",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_MODEL_NAME": MODEL_NAME,
            "MLSERVER_MODEL_IMPLEMENTATION": "benchmarks.peers.mlserver_batch.MlserverBatched",
            "MLSERVER_MODEL_MAX_BATCH_SIZE": "32",
            "MLSERVER_MODEL_MAX_BATCH_TIME": "0.01",
        },
        codec=MLSERVER,
        folder=folder,
    )


def _infinity(assets: Assets, cores: int, port: int, folder: Path) -> Peer:
    serve = (str(folder / "bin" / "infinity_emb"), "v2", *_LOOPBACK, "--port", str(port))
    model = ("--model-id", str(assets.bounded), "--served-model-name", MODEL_NAME)
    return Peer(
        name="infinity",
        about=f"{_title('Infinity')}, its own batching, torch fp32: 1 process, {cores} torch thread(s)",
        command=(
            *(*serve, *model, "--engine", "torch", "--device", "cpu", "--batch-size", "32"),
            # Every text is computed; and torch.compile wants a C++ compiler, BetterTransformer an
            # optimum that this transformers does not go with.
            *("--no-vector-disk-cache", "--no-compile", "--no-bettertransformer"),
        ),
        model=assets.bounded,
        environment={
            **_environment(assets, cores, folder),
            "OMP_NUM_THREADS": str(cores),
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        },
        codec=INFINITY,
        folder=folder,
    )


def _title(name: str) -> str:
    """With the version that is installed."""
    file = REQUIREMENTS / f"{name.lower()}.txt"
    return f"{name} {pinned(file, {'Infinity': 'infinity-emb'}.get(name, name.lower()))}"


def _environment(assets: Assets, cores: int, folder: Path) -> dict[str, str]:
    settings = PeerSettings(model=assets.quantized, max_length=assets.max_length, cores=cores)
    return {
        **settings.environment(),
        "PYTHONPATH": str(sources_of(folder)),
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }


# Name -> how it is started, given what it reads, the cores, the port and its environment's folder.
APART: Mapping[str, MakePeer] = {
    "litserve": _litserve,
    "bentoml": _bentoml,
    "mlserver": _mlserver,
    "infinity": _infinity,
}
