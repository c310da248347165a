"""The machine an export is measured on, for people."""

from __future__ import annotations

import platform
from pathlib import Path

from serving.lanes import usable_cores


def machine() -> str:
    """CPU model, architecture and usable cores."""
    return f"{_cpu()}, {platform.system()} {platform.machine()}, {usable_cores()} cores"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "CPU")
