"""PyTorch on a GPU: the same model in half precision, fused attention."""

from __future__ import annotations

from benchmarks.backends import torch_cpu
from benchmarks.backends.variant import LoadJob, Run


def missing(precision: str) -> str | None:
    """Why it cannot run here; None when it can."""
    if reason := torch_cpu.missing("fp32"):
        return reason
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        return "there is no GPU" if built else "this torch is built without CUDA"
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        return "this GPU does not multiply bf16"
    return None


def load(job: LoadJob) -> Run:
    """The checkpoint in `job.model`, on the first GPU."""
    import torch

    torch.set_num_threads(job.threads)
    return torch_cpu.load_model(job, device="cuda")
