"""PyTorch on the CPU: transformers' own model with fused attention (SDPA)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backends.variant import LoadJob, Run
from serving.session import Encoding, Logits, padded

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_CPUINFO = Path("/proc/cpuinfo")
_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")  # the last: arm64


def missing(precision: str) -> str | None:
    """Why it cannot run here; None when it can."""
    try:
        import torch  # noqa: F401 - whether it can be imported is the question
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{error.name or error} is not installed (pip install 'miniml[training]')"
    if precision == "bf16" and not multiplies_bf16():
        return "this CPU does not multiply bf16; torch would take it apart, slower than fp32"
    return None


def load(job: LoadJob) -> Run:
    """The checkpoint in `job.model`, for *lanes* callers at once."""
    import torch

    torch.set_num_threads(job.threads)
    return load_model(job, device="cpu")


def load_model(job: LoadJob, *, device: str) -> Run:
    """The checkpoint on *device*: encodings in, logits on the host out."""
    import torch
    from transformers import AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(
        job.model,
        dtype=getattr(torch, _DTYPES[job.precision]),
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=False,
    )
    model = model.to(device).eval()
    names = _inputs(model)

    def run(encodings: Sequence[Encoding]) -> Logits:
        feed = padded(encodings, pad_token_id=job.pad_token_id)
        with torch.inference_mode():
            given = {name: torch.from_numpy(feed[name]).to(device) for name in names}
            # To the host: on a GPU, that is when the work is done.
            return np.asarray(model(**given).logits.float().cpu().numpy(), dtype=np.float32)

    return run


def multiplies_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU says so; without it bf16 is fp32 with conversions."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return any(feature in words for feature in _BF16_FEATURES)


def _inputs(model: Any) -> list[str]:
    """What the model takes; RoBERTa has the word token_type_ids, and no use for it."""
    names = ["input_ids", "attention_mask"]
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    if takes and getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return names
