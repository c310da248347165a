"""OpenVINO on the CPU, as `serving` opens it: a stream a lane."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.backends.torch_cpu import multiplies_bf16
from benchmarks.backends.variant import LoadJob, Run
from serving.session import open_session


def missing(precision: str) -> str | None:
    """Why it cannot run here; None when it can."""
    try:
        import openvino  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        return f"{error.name or error} is not installed (pip install 'miniml[openvino]')"
    if precision == "bf16" and not multiplies_bf16():
        return "this CPU does not multiply bf16"
    return None


def load(job: LoadJob) -> Run:
    """The graph `job.model`, for *lanes* callers at once."""
    session = open_session(
        Path(job.model),
        threads=job.threads,
        streams=job.lanes,
        runtime="openvino",
        options=job.options,
    )
    return partial(session.run, pad_token_id=job.pad_token_id)
