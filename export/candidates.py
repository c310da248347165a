"""The candidates: a recipe, what runs its graph, and for which machine. A new one is a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import onnx

from export.errors import UnknownCandidate
from export.recipes.bfloat16 import multiply_in_bfloat16
from export.recipes.compensated import quantize_compensated
from export.recipes.dynamic import quantize_dynamically
from export.recipes.material import Material
from export.recipes.mixed import quantize_mixed
from export.recipes.plain import fuse, halve, keep, keep_slim
from export.recipes.rowwise import NARROW_STEPS, compress_weights, quantize_rowwise
from export.recipes.static import quantize_statically
from serving.isa import architecture, cpu_features, fast_int8
from serving.package import Runtime

FP32 = "fp32"
Target = Literal["cpu", "cuda"]
# OpenVINO quantizes activations in groups of so many channels, which must divide every row: the
# hidden size divides the inner one, too. Where it does not, OpenVINO silently multiplies floats.
_HIDDEN = "{hidden_size}"
_GROUP = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": _HIDDEN}
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
_BF16 = {"INFERENCE_PRECISION_HINT": "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way to make a graph: make(material, target path), and what runs it.

    needs: a CPU feature without which it is not tried. narrow: for CPUs that have no exact and fast
    int8, and not tried on others. calibrated: on training texts.
    """

    name: str
    make: Callable[[Material, Path], None]
    target: Target = "cpu"
    runtime: Runtime = "onnxruntime"
    options: Mapping[str, str] = field(default_factory=dict)
    needs: str | None = None
    narrow: bool = False
    calibrated: bool = False


def _rewritten(
    rewrite: Callable[..., onnx.ModelProto], **choices: Any
) -> Callable[[Material, Path], None]:
    """A recipe that rewrites the slimmed graph."""

    def make(material: Material, target: Path) -> None:
        onnx.save(rewrite(onnx.load(str(material.slim)), **choices), str(target))

    return make


def _openvino(name: str, make: Callable[[Material, Path], None], **choices: Any) -> Candidate:
    return Candidate(name=f"openvino-{name}", make=make, runtime="openvino", **choices)


# By promise: when time runs out, what comes last was not tried.
CANDIDATES: tuple[Candidate, ...] = (
    # By ISA: arm64 multiplies signed activations faster, x86 six times slower.
    Candidate(
        name="int8-row-wise", make=_rewritten(quantize_rowwise, signed=architecture() == "arm64")
    ),
    Candidate(
        name="int8-row-wise-narrow",
        make=partial(quantize_compensated, weight_steps=NARROW_STEPS),
        narrow=True,
    ),
    _openvino(
        "int8-row-wise-bf16",
        _rewritten(compress_weights),
        options=_GROUP | _BF16,
        needs="avx512_bf16",
    ),
    _openvino("int8-row-wise", _rewritten(compress_weights), options=_GROUP | _EXACT),
    Candidate(name="int8-per-channel", make=quantize_dynamically),
    Candidate(name="fp32-slim", make=keep_slim),
    Candidate(
        name="int8-static-smooth",
        make=partial(quantize_statically, smooth=True),
        calibrated=True,
    ),
    _openvino(
        "int8-static-smooth",
        partial(quantize_statically, smooth=True),
        options=_EXACT,
        calibrated=True,
    ),
    _openvino("bf16", keep_slim, options=_BF16, needs="avx512_bf16"),
    Candidate(
        name="int8-row-wise-mixed",
        make=partial(quantize_mixed, signed=architecture() == "arm64"),
        calibrated=True,
    ),
    Candidate(name="int8-per-tensor", make=partial(quantize_dynamically, per_channel=False)),
    Candidate(name="int8-fused-per-channel", make=partial(quantize_dynamically, fused=True)),
    Candidate(
        name="int8-fused-per-tensor",
        make=partial(quantize_dynamically, per_channel=False, fused=True),
    ),
    Candidate(name="int8-reduced-range", make=partial(quantize_dynamically, reduce_range=True)),
    Candidate(
        name="int8-unsigned",
        make=partial(quantize_dynamically, per_channel=False, signed_weights=False),
    ),
    Candidate(name="int8-static-minmax", make=quantize_statically, calibrated=True),
    Candidate(
        name="int8-static-percentile",
        make=partial(quantize_statically, method="Percentile"),
        calibrated=True,
    ),
    Candidate(
        name="int8-static-entropy",
        make=partial(quantize_statically, method="Entropy"),
        calibrated=True,
    ),
    Candidate(
        name="int8-row-wise-embed-fp32",
        make=_rewritten(quantize_rowwise, signed=architecture() == "arm64", embeddings=False),
    ),
    Candidate(name="fp32-fused", make=fuse),
    _openvino("fp32", keep_slim, options=_EXACT),
    Candidate(name="cuda-fp16", make=halve, target="cuda", runtime="cuda"),
    Candidate(
        name="cuda-bf16", make=_rewritten(multiply_in_bfloat16), target="cuda", runtime="cuda"
    ),
    Candidate(name="cuda-fp32", make=keep_slim, target="cuda", runtime="cuda"),
    Candidate(name="tensorrt-fp16", make=halve, target="cuda", runtime="tensorrt"),
    Candidate(name=FP32, make=keep),
)


def choose_candidates(
    names: Sequence[str], *, target: Target
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Those named, by commas, or all that this machine can run; fp32 is always there, last.

    And what was left out: name -> why. Raises `UnknownCandidate` with the list.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    names = [name.strip() for given in names for name in given.split(",")]
    for name in names:
        if name not in known:
            raise UnknownCandidate(f"No candidate {name!r}; there are: {', '.join(known)}.")
    # What is for another kind of machine altogether is worth a line only when it was asked for.
    fitting = (candidate.name for candidate in CANDIDATES if candidate.target == target)
    wanted = [known[name] for name in dict.fromkeys(names or fitting) if name != FP32]
    left_out = {
        candidate.name: reason for candidate in wanted if (reason := _unfit(candidate, target))
    }
    chosen = [candidate for candidate in wanted if candidate.name not in left_out]
    return (*chosen, known[FP32]), left_out


def runtime_options(candidate: Candidate, hidden_size: int) -> dict[str, str]:
    """The options of its runtime, for a network of that hidden size."""
    return {
        name: value.replace(_HIDDEN, str(hidden_size)) for name, value in candidate.options.items()
    }


def required_isa(candidate: Candidate) -> tuple[str, ...]:
    """CPU features the measured speed, and for int8 the exact answers, rest on here."""
    fast = fast_int8(cpu_features()) if "int8" in candidate.name else None
    return tuple(sorted({*filter(None, (fast, candidate.needs))}))


def _unfit(candidate: Candidate, target: Target) -> str | None:
    """Why *candidate* cannot be tried on this machine."""
    if candidate.target != target:
        return f"it is for {candidate.target}"
    if candidate.needs is not None and candidate.needs not in cpu_features():
        return f"this CPU has no {candidate.needs}"
    if candidate.narrow and (fast := fast_int8(cpu_features())):
        return f"this CPU has {fast}, which multiplies 8-bit weights as fast"
    if candidate.runtime == "openvino" and find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install 'miniml[openvino]')"
    return None
