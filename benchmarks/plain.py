"""A checkpoint made into what its user would run without miniml: optimum's and ONNX Runtime's commands.

Each runs in a process of its own, so that neither its memory nor its threads stay in a benchmark.
Knows neither packages nor servers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.errors import PlainModelFailed

MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"  # as optimum names them
_SHOWN_CHARS = 300
_OPEN = (
    "import sys, onnxruntime as ort\n"
    "ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
)


def export_plain(checkpoint: Path, target: Path) -> Path:
    """`optimum-cli export onnx`: the fp32 graph, config and tokenizer in the folder *target*.

    Raises `PlainModelFailed` with optimum's last word.
    """
    task = ("--task", "text-classification")
    return _optimum(target, "export", "onnx", "--model", str(checkpoint), *task, str(target))


def quantize_plain(exported: Path, target: Path) -> Path:
    """`optimum-cli onnxruntime quantize`: dynamic int8, one scale a column, in the folder *target*.

    With optimum's recipe for this CPU. Raises `PlainModelFailed` with optimum's last word, or with
    ONNX Runtime's when it cannot open what optimum made: who serves it would only fail later.
    """
    what = ("--onnx_model", str(exported), _recipe(), "--per_channel")
    _optimum(target, "onnxruntime", "quantize", *what, "--output", str(target))
    done = _python("-c", _OPEN, str(target / QUANTIZED))
    if done.returncode != 0:
        raise PlainModelFailed(f"ONNX Runtime cannot open optimum's int8 graph: {_last_word(done)}")
    return target


def _recipe() -> str:
    """Optimum's flag for this CPU: on x86 without VNNI its signed weights overflow."""
    # Not above: peers read the names above where there is no `serving`.
    from serving.isa import architecture, cpu_features, fast_int8

    if architecture() == "arm64":
        return "--arm64"
    return "--avx512_vnni" if fast_int8(cpu_features()) else "--avx2"


def halve_plain(exported: Path, target: Path) -> Path:
    """ONNX Runtime's transformer optimizer: fused and in fp16, for a GPU, in the folder *target*.

    Raises `PlainModelFailed` with its last word.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = ("--input", str(exported / MODEL), "--output", str(target / MODEL))
    config = json.loads((exported / "config.json").read_bytes())
    heads = config.get("num_attention_heads") or config["n_heads"]
    hidden = config.get("hidden_size") or config["dim"]
    sizes = ("--num_heads", str(heads), "--hidden_size", str(hidden))
    what = ("--model_type", "bert", "--float16", "--use_gpu", "--opt_level", "0")
    _run("onnxruntime.transformers.optimizer", *files, *sizes, *what)
    return target


def _optimum(target: Path, *arguments: str) -> Path:
    if find_spec("optimum") is None:
        raise PlainModelFailed("optimum is not installed; pip install 'miniml[export]'.")
    _run("optimum.commands.optimum_cli", *arguments)
    return target


def _run(module: str, *arguments: str) -> None:
    done = _python("-m", module, *arguments)
    if done.returncode != 0:
        what = f"{module.rpartition('.')[2]} {arguments[0]}".replace("optimum_cli", "optimum-cli")
        raise PlainModelFailed(f"{what} failed: {_last_word(done)}")


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _last_word(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or "it printed nothing").splitlines()[-1][:_SHOWN_CHARS]
