"""The recipes: fp32 graph in, candidate graph out. A new one is a function and a line in the table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import UnknownCandidate
from export.rowwise import quantize_rowwise

FP32 = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way to make a graph: make(fp32 path, target path); it may write beside the target."""

    name: str
    make: Callable[[Path, Path], None]


def keep_fp32(source: Path, target: Path) -> None:
    """The graph as exported."""
    shutil.copyfile(source, target)


def quantize_per_channel(source: Path, target: Path) -> None:
    """Stock dynamic int8: one scale a weight column, one activation scale a batch.

    Weights keep all 8 bits (no reduce_range): VNNI adds 8-bit products exactly, and on a CPU where
    they would overflow the gates see it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    # Shapes only: ONNX Runtime's own fusions here would make nodes that the quantizer cannot type.
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(
        prepared,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    prepared.unlink()


# In order of preference: the first that passes its gates is packaged.
CANDIDATES = (
    Candidate(name="int8-row-wise", make=quantize_rowwise),
    Candidate(name="int8-per-channel", make=quantize_per_channel),
    Candidate(name=FP32, make=keep_fp32),
)


def choose_candidates(names: Sequence[str]) -> tuple[Candidate, ...]:
    """The recipes named, in that order, fp32 last; all of them for no names.

    Raises `UnknownCandidate` with the list.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    for name in names:
        if name not in known:
            raise UnknownCandidate(f"No candidate {name!r}; there are: {', '.join(known)}.")
    wanted = [name for name in dict.fromkeys(names or known) if name != FP32]
    return tuple(known[name] for name in (*wanted, FP32))
