"""Running a graph: encodings in, logits out, on ONNX Runtime, OpenVINO or a GPU.

Knows neither texts nor packages. Options are set explicitly: threads, no spinning (a spinning idle
thread steals the core the other lane needs), streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from serving.encoding import Encoding, Feed, Logits, failure, padded
from serving.errors import EngineFailed, PackageError
from serving.gpu import GPU_RUNTIMES, open_gpu_session
from serving.isa import cpu_features, fast_int8
from serving.package import Runtime

__all__ = ["Encoding", "Feed", "Logits", "Session", "open_session", "padded"]


class Session(Protocol):
    """A loaded graph. `run` may be called from as many threads at once as it has streams."""

    def run(self, encodings: Sequence[Encoding], *, pad_token_id: int = 0) -> Logits:
        """Logits (B, labels) float32 of one right-padded batch, in order.

        Raises `EngineFailed` when the graph does.
        """
        ...


def open_session(  # noqa: PLR0913 - every one but the first two has a default that is right
    model_path: Path,
    *,
    threads: int,
    streams: int = 1,
    runtime: Runtime = "onnxruntime",
    options: Mapping[str, str] | None = None,
    max_length: int = 512,
) -> Session:
    """Load the graph. Raises `PackageError` when it cannot be, or the runtime is not installed.

    max_length: tokens of the longest text; on a GPU nothing is padded beyond, up to there it may be.
    """
    options = options or {}
    if runtime == "openvino":
        return _OpenVinoSession(model_path, threads=threads, streams=streams, options=options)
    settings = _settings(threads)
    if runtime in GPU_RUNTIMES:
        return open_gpu_session(
            model_path,
            settings,
            streams=streams,
            runtime=runtime,
            options=options,
            max_length=max_length,
        )
    count = 1 if threads == 1 else streams
    return _OnnxSession(model_path, settings, count=count, streams=streams, options=options)


def _settings(threads: int) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fast_int8(cpu_features()):
        # x86 without VNNI adds int8 products in pairs, in 16 bits, and silently caps the sums. With
        # this it takes an exact kernel for weights beyond -64..64. With VNNI, whose own kernel is
        # exact, it would take that one, too, at 0.6 of the speed.
        settings.add_session_config_entry("session.x64quantprecision", "1")
    # A plan of the memory would be kept for every shape that ever came: after 600 batches of the
    # demo's model 30 MB more, and no faster.
    settings.enable_mem_pattern = False
    settings.log_severity_level = 3
    return settings


class _OnnxSession:
    """ONNX Runtime. One thread: a session shared by all streams, so k lanes hold the weights once.

    Several threads: a session a stream, for a session has one thread pool.
    """

    def __init__(
        self,
        model_path: Path,
        settings: ort.SessionOptions,
        *,
        count: int,
        streams: int,
        options: Mapping[str, str],
    ) -> None:
        providers = [("CPUExecutionProvider", dict(options))]
        self._sessions: SimpleQueue[Any] = SimpleQueue()
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
            raise EngineFailed(failure(encodings, error)) from error
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
            raise EngineFailed(failure(encodings, error)) from error
        finally:
            self._requests.put(infer)
