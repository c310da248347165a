"""ONNX Runtime on a GPU, as `serving` opens it: IO binding, CUDA graphs over few padded shapes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.backends import onnx_cpu
from benchmarks.backends.variant import LoadJob, Run
from serving.session import open_session

_PROVIDER = "CUDAExecutionProvider"


def missing(precision: str) -> str | None:
    """Why it cannot run here; None when it can."""
    if reason := onnx_cpu.missing(precision):
        return reason
    import onnxruntime as ort

    if _PROVIDER not in ort.get_available_providers():
        return "this ONNX Runtime has no CUDA (pip install 'miniml[serving-gpu]', on a GPU)"
    return None


def load(job: LoadJob) -> Run:
    """The graph `job.model`, on the first GPU. Raises `PackageError` when that does not start."""
    session = open_session(
        Path(job.model),
        threads=job.threads,
        streams=job.lanes,
        runtime="cuda",
        options=job.options,
        max_length=job.max_length,
    )
    return partial(session.run, pad_token_id=job.pad_token_id)
