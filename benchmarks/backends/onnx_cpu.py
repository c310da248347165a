"""ONNX Runtime on the CPU, as `serving` opens it: no spinning, a session a lane or one for all."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.backends.variant import LoadJob, Run
from serving.session import open_session


def missing(precision: str) -> str | None:  # noqa: ARG001 - as every backend
    """Why it cannot run here; None when it can."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'miniml[serving]')"
    return None


def load(job: LoadJob) -> Run:
    """The graph `job.model`, for *lanes* callers at once."""
    session = open_session(
        Path(job.model), threads=job.threads, streams=job.lanes, options=job.options
    )
    return partial(session.run, pad_token_id=job.pad_token_id)
