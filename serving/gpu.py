"""Opening a graph on a GPU: which provider, with which options, and what is missing.

Knows no texts; how a loaded session is run is `serving.cuda`'s.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from registry.home import home
from serving.cuda import CudaSession
from serving.errors import PackageError
from serving.options import Device
from serving.package import MODEL_DATA, PackageConfig, Runtime

_log = logging.getLogger(__name__)
GPU_RUNTIMES: tuple[Runtime, ...] = ("cuda", "tensorrt")
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
# TensorRT builds one engine for shapes up to here, and builds it again when a larger one comes.
_PROFILE_BATCH = 64
_PROFILE_USUAL = (8, 64)


def gpus_for(config: PackageConfig, device: Device, share: float | None = None) -> float:
    """GPUs that a replica of this package needs: 0, or the *share* of one, which is 1 unless told.

    Raises `PackageError` when *device* is not what the package was exported for: a graph is timed
    and judged on one kind of device, and proves nothing on the other; or for a share of no GPU.
    """
    made_for: Device = "cuda" if config.runtime in GPU_RUNTIMES else "cpu"
    if device not in ("auto", made_for):
        raise PackageError(
            f"{config.name} was exported for {made_for} ({config.precision}), not for {device};"
            f" run miniml export --target {device} for one that is, or serve this with --device auto."
        )
    if made_for == "cpu" and share is not None:
        raise PackageError(
            f"{config.name} was exported for cpu ({config.precision}), so its replicas have no GPU"
            f" to share; leave out --gpus {share:g}."
        )
    return (share or 1) if made_for == "cuda" else 0


def default_streams(runtime: Runtime) -> int | None:
    """Batches run at once when nobody says how many; None: a lane a core, as CPUs want.

    1 on a GPU: its kernels fill it one batch at a time, and a stream holds the weights once more.
    """
    return 1 if runtime in GPU_RUNTIMES else None


def open_gpu_session(  # noqa: PLR0913 - what `open_session` takes, and the CPU's settings
    model_path: Path,
    settings: ort.SessionOptions,
    *,
    streams: int,
    runtime: Runtime,
    options: Mapping[str, str],
    max_length: int,
) -> CudaSession:
    """Load the graph on the first GPU, once a stream.

    options: of the runtime's provider; `enable_cuda_graph=0` is for a graph that cannot be recorded.
    max_length: tokens of the longest text. Raises `PackageError` when a provider is missing or does
    not load the graph.
    """
    _require(model_path, (_TENSORRT, _CUDA) if runtime == "tensorrt" else (_CUDA,))
    ort.preload_dlls()  # CUDA and cuDNN, when they are installed as Python packages
    if runtime == "tensorrt":
        ours = tensorrt_options(model_path, max_length=max_length, inputs=_inputs_of(model_path))
        providers: list[Any] = [(_TENSORRT, {**ours, **options}), _CUDA]
        sessions = [_open(model_path, settings, providers) for _ in range(streams)]
        # TensorRT's own recording knows one shape a session.
        return CudaSession(sessions, max_length=max_length, record=False)
    chosen = {"enable_cuda_graph": "1", **options}
    recorded = chosen["enable_cuda_graph"] == "1"
    try:
        sessions = [_open(model_path, settings, [(_CUDA, chosen)]) for _ in range(streams)]
    except PackageError as error:
        if not recorded:
            raise
        # Loading is where ONNX Runtime refuses to record a graph of which a node stays on the CPU.
        recorded = False
        _log.info("Without CUDA graphs: %s", error)
        chosen["enable_cuda_graph"] = "0"
        sessions = [_open(model_path, settings, [(_CUDA, chosen)]) for _ in range(streams)]
    return CudaSession(sessions, max_length=max_length, record=recorded)


def _require(model_path: Path, providers: Sequence[str]) -> None:
    if missing := set(providers) - set(ort.get_available_providers()):
        raise PackageError(
            f"{model_path.name} needs {', '.join(sorted(missing))}, which this ONNX Runtime does"
            " not have; install onnxruntime-gpu or export the model for this machine."
        )


def tensorrt_options(model_path: Path, *, max_length: int, inputs: Sequence[str]) -> dict[str, str]:
    """Provider options: one engine for every bucket, kept in miniml's home from start to start.

    An engine fits one graph, its constants and one version of ONNX Runtime, so these name its
    folder; it fits one compute capability too, which ONNX Runtime puts into the file's name.
    """
    digest = hashlib.sha256()
    for path in (model_path, model_path.with_name(MODEL_DATA)):
        if path.exists():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = home() / "cache" / "tensorrt" / f"{digest.hexdigest()[:16]}-{ort.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    usual_batch, usual_length = _PROFILE_USUAL
    shapes = {
        "min": (1, 1),
        "opt": (usual_batch, min(usual_length, max_length)),
        "max": (_PROFILE_BATCH, max_length),
    }
    profiles = {
        f"trt_profile_{name}_shapes": ",".join(f"{given}:{batch}x{length}" for given in inputs)
        for name, (batch, length) in shapes.items()
    }
    return {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        **profiles,
    }


def _inputs_of(model_path: Path) -> list[str]:
    """Names of the graph's inputs: TensorRT wants them before the graph is loaded for it."""
    light = ort.SessionOptions()
    light.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    light.log_severity_level = 3
    session = _open(model_path, light, ["CPUExecutionProvider"])
    return [node.name for node in session.get_inputs()]


def _open(model_path: Path, settings: ort.SessionOptions, providers: list[Any]) -> Any:
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    try:
        # Its fallback would print, and serve a GPU's graph on the CPU.
        session = ort.InferenceSession(
            str(model_path), settings, providers=providers, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's own classes share no public base
        raise PackageError(f"{model_path.name} cannot be loaded: {error}") from error
    if wanted not in session.get_providers():
        raise PackageError(
            f"{wanted} did not start for {model_path.name}; is there a GPU here, with its driver and"
            " the CUDA and cuDNN libraries (pip install 'onnxruntime-gpu[cuda,cudnn]')?"
        )
    return session
