"""A checkpoint made into what its user would run without miniml: optimum's two commands.

Each runs in a process of its own, so that neither its memory nor its threads stay in a benchmark.
Knows neither packages nor servers.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.errors import PlainModelFailed
from serving.isa import architecture, cpu_features, fast_int8

MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"  # as optimum names them
_SHOWN_CHARS = 300


def export_plain(checkpoint: Path, target: Path) -> Path:
    """`optimum-cli export onnx`: the fp32 graph, config and tokenizer in the folder *target*.

    Raises `PlainModelFailed` with optimum's last word.
    """
    task = ("--task", "text-classification")
    return _optimum(target, "export", "onnx", "--model", str(checkpoint), *task, str(target))


def quantize_plain(exported: Path, target: Path) -> Path:
    """`optimum-cli onnxruntime quantize`: dynamic int8, one scale a column, in the folder *target*.

    With optimum's recipe for this CPU. Raises `PlainModelFailed` with optimum's last word.
    """
    what = ("--onnx_model", str(exported), _recipe(), "--per_channel")
    return _optimum(target, "onnxruntime", "quantize", *what, "--output", str(target))


def _recipe() -> str:
    """Optimum's flag for this CPU: on x86 without VNNI its signed weights overflow."""
    if architecture() == "arm64":
        return "--arm64"
    return "--avx512_vnni" if fast_int8(cpu_features()) else "--avx2"


def _optimum(target: Path, *arguments: str) -> Path:
    if find_spec("optimum") is None:
        raise PlainModelFailed("optimum is not installed; pip install 'miniml[export]'.")
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise PlainModelFailed(f"optimum-cli {arguments[0]} failed: {last[:_SHOWN_CHARS]}")
    return target
