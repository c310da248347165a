"""What to compute on: the device, how many cores are ours, and whether bfloat16 pays there.

It knows nothing of models or data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from training.errors import DeviceError

Device = Literal["cpu", "cuda", "mps"]
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def pick_device(wanted: Literal["cpu", "cuda", "mps", "auto"]) -> Device:
    """*wanted*, or for `auto` the fastest that is here. Raises `DeviceError`."""
    import torch

    here: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(device for device, found in here.items() if found)
    if not here[wanted]:
        others = " or ".join(device for device, found in here.items() if found)
        raise DeviceError(f"This machine has no {wanted} device; use --device {others} or auto.")
    return wanted


def device_for(wanted: Literal["cpu", "cuda", "mps", "auto"], *, workers: int) -> Device:
    """As `pick_device`, for each of *workers*; here, unless RAY_ADDRESS names other machines.

    mps has no way for workers to talk to each other.
    """
    import torch

    device = pick_device(wanted)
    if workers == 1 or device == "cpu":
        return device
    if device == "mps":
        if wanted == "auto":
            return "cpu"
        raise DeviceError("On mps only one worker can train; use --workers 1 or --device cpu.")
    if "RAY_ADDRESS" not in os.environ and (here := torch.cuda.device_count()) < workers:
        raise DeviceError(
            f"--workers {workers} needs as many GPUs, and {here} is here; use --workers {here}, "
            "--device cpu, or a cluster (RAY_ADDRESS)."
        )
    return device


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the container's quota rounded down."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has neither affinity nor cgroups
        return os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(_CPU_QUOTA) or cores))


def bf16_pays(device: Device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32.

    On a CPU only with native instructions: elsewhere oneDNN emulates them, slower than float32.
    """
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device == "cpu" else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _quota_cores(path: Path) -> int | None:
    """Whole cores that `cpu.max` ("quota period" in us, or "max period") allows; None: no limit."""
    try:
        quota_us, period_us = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota_us == "max" else max(1, int(quota_us) // int(period_us))
