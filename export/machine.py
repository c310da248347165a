"""The machine an export is measured on, and the versions and the code that make its graphs."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving.lanes import usable_cores

_LIBRARIES = (
    *("miniml", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "optimum-onnx"),
    *("tokenizers", "torch", "transformers"),
)


def machine() -> str:
    """CPU model, architecture and usable cores."""
    return f"{_cpu()}, {platform.system()} {platform.machine()}, {usable_cores()} cores"


def versions() -> dict[str, str]:
    """Of all that makes, runs or times a graph, as far as it is installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra, or miniml itself, run from a bare checkout
            continue
    return found


def code_digest(room: Path = Path(__file__).parent) -> str:
    """Hex sha256 of this stage's own source: a checkout changes more often than its version."""
    found = hashlib.sha256()
    for path in sorted(room.rglob("*.py")):
        found.update(f"{path.relative_to(room).as_posix()}\0".encode() + path.read_bytes())
    return found.hexdigest()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "CPU")
