"""Running a graph: encodings in, logits out, on ONNX Runtime or OpenVINO.

Knows neither texts nor packages. Options are set explicitly: threads, no spinning (a spinning idle
thread steals the core the other lane needs), streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from serving.errors import EngineFailed, PackageError
from serving.package import Runtime

Logits = npt.NDArray[np.float32]
Feed = Mapping[str, npt.NDArray[np.int64]]
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One text as the model sees it: T token ids and their segment (0, or 1 for the second text)."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Session(Protocol):
    """A loaded graph. `run` may be called from as many threads at once as it has streams."""

    def run(self, encodings: Sequence[Encoding], *, pad_token_id: int = 0) -> Logits:
        """Logits (B, labels) float32 of one right-padded batch, in order.

        Raises `EngineFailed` when the graph does.
        """
        ...


def open_session(
    model_path: Path,
    *,
    threads: int,
    streams: int = 1,
    runtime: Runtime = "onnxruntime",
    options: Mapping[str, str] | None = None,
) -> Session:
    """Load the graph. Raises `PackageError` when it cannot be, or the runtime is not installed."""
    if runtime == "openvino":
        return _OpenVinoSession(model_path, threads=threads, streams=streams, options=options or {})
    return _OnnxSession(
        model_path, threads=threads, streams=streams, runtime=runtime, options=options or {}
    )


class _OnnxSession:
    """ONNX Runtime. One thread: a session shared by all streams, so k lanes hold the weights once.

    Several threads: a session a stream, for a session has one thread pool.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int,
        streams: int,
        runtime: Runtime,
        options: Mapping[str, str],
    ) -> None:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        providers: list[Any] = list(_PROVIDERS[runtime])
        if missing := set(providers) - set(ort.get_available_providers()):
            raise PackageError(
                f"{model_path.name} needs {', '.join(sorted(missing))}, which this ONNX Runtime does"
                " not have; install onnxruntime-gpu or export the model for this machine."
            )
        providers[0] = (providers[0], dict(options))
        self._sessions: SimpleQueue[Any] = SimpleQueue()
        count = 1 if threads == 1 else streams
        for _ in range(count):
            try:
                session = ort.InferenceSession(str(model_path), settings, providers=providers)
            except Exception as error:  # ONNX Runtime's own classes share no public base
                raise PackageError(f"{model_path.name} cannot be loaded: {error}") from error
            for _ in range(streams // count):
                self._sessions.put(session)
        self._inputs = tuple(node.name for node in session.get_inputs())
        self._output = session.get_outputs()[0].name

    def run(self, encodings: Sequence[Encoding], *, pad_token_id: int = 0) -> Logits:
        """As `Session.run`."""
        feed = padded(encodings, pad_token_id=pad_token_id)
        session = self._sessions.get()
        try:
            (output,) = session.run([self._output], {name: feed[name] for name in self._inputs})
        except Exception as error:
            raise EngineFailed(_failure(encodings, error)) from error
        finally:
            self._sessions.put(session)
        return np.asarray(output, dtype=np.float32)


class _OpenVinoSession:
    """OpenVINO on the CPU: one compiled model with a stream a lane, each with its own request."""

    def __init__(
        self, model_path: Path, *, threads: int, streams: int, options: Mapping[str, str]
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise PackageError(
                f"{model_path.name} runs on OpenVINO, which is not installed;"
                " pip install 'miniml[openvino]', or export it without."
            ) from error
        settings = {
            "INFERENCE_NUM_THREADS": str(threads * streams),
            "NUM_STREAMS": str(streams),
            "ENABLE_CPU_PINNING": "NO",  # pinned threads of two replicas would share one core
            **options,
        }
        try:
            core = openvino.Core()
            model = core.compile_model(core.read_model(str(model_path)), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError and its own kinds
            raise PackageError(f"{model_path.name} cannot be loaded: {error}") from error
        self._inputs = tuple(node.get_any_name() for node in model.inputs)
        self._output = model.output(0)
        self._requests: SimpleQueue[Callable[..., Any]] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request().infer)

    def run(self, encodings: Sequence[Encoding], *, pad_token_id: int = 0) -> Logits:
        """As `Session.run`."""
        feed = padded(encodings, pad_token_id=pad_token_id)
        infer = self._requests.get()
        try:
            found = infer({name: feed[name] for name in self._inputs})
            # A copy: the request owns the memory and writes over it in its next run.
            return np.array(found[self._output], dtype=np.float32)
        except Exception as error:
            raise EngineFailed(_failure(encodings, error)) from error
        finally:
            self._requests.put(infer)


def padded(encodings: Sequence[Encoding], *, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Every input a text encoder may take, (B, T) int64 with T the longest text.

    int64: the ONNX export of every encoder fixes this type.
    """
    shape = (len(encodings), max(len(encoding) for encoding in encodings))
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    type_ids = np.zeros(shape, dtype=np.int64)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)] = encoding.ids
        mask[row, : len(encoding)] = 1
        type_ids[row, : len(encoding)] = encoding.type_ids
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": type_ids}


def _failure(encodings: Sequence[Encoding], error: Exception) -> str:
    return f"the model failed on a batch of {len(encodings)}: {error}"
