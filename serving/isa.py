"""What this CPU can do, by the names a package uses for what it was chosen for.

x86: avx2, avx512f, avx512_vnni, avx_vnni, avx512_bf16, amx_int8 as the kernel names them. arm64:
asimddp (dot products of int8), i8mm, bf16.
"""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_NAMED = ("flags", "Features")  # x86 and arm64


def cpu_features(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Features of the first core; empty where the kernel does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":") for line in lines)
    return next(
        (frozenset(rest.split()) for name, _, rest in found if name.strip() in _NAMED), frozenset()
    )


def fast_int8(features: frozenset[str]) -> str | None:
    """The feature that multiplies int8 exactly and fast here; None when there is none."""
    wanted = ("avx512_vnni", "avx_vnni", "asimddp")
    return next((name for name in wanted if name in features), None)


def architecture() -> str:
    """Of this machine, as recipes are chosen by it: x86_64, arm64, or what Python calls it."""
    machine = platform.machine().lower()
    return "arm64" if machine in ("arm64", "aarch64") else machine.replace("amd64", "x86_64")
