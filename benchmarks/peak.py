"""What these cores can do at most in int8: the ceiling beside which an engine's rate stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

# Products large enough to hide all overhead, small enough for the cache: (rows, inner, columns).
_SHAPES = (
    (128, 768, 3072),
    (256, 768, 3072),
    (1024, 768, 3072),
    (256, 3072, 768),
    (512, 1024, 1024),
)
_REPEATS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Peak:
    """gops: 1e9 operations a second (a multiply-add is two). how: by what, for people."""

    gops: float
    threads: int
    how: str


def measure_int8_peak(threads: int) -> Int8Peak:
    """The best rate of a plain uint8 x int8 product of ONNX Runtime, over shapes and repeats.

    Nothing but the product: no scales, no quantizing. Published clock rates are of no use in a
    virtual machine, so the ceiling is measured like everything else.
    """
    best = max((_best_gops(shape, threads), shape) for shape in _SHAPES)
    rows, inner, columns = best[1]
    how = (
        f"best of {_REPEATS} x {len(_SHAPES)} plain MatMulInteger runs, at {rows}x{inner}x{columns}"
    )
    return Int8Peak(gops=best[0], threads=threads, how=how)


def _best_gops(shape: tuple[int, int, int], threads: int) -> float:
    rows, inner, columns = shape
    session = _product(inner, columns, threads)
    codes = np.random.default_rng(0).integers(0, 255, (rows, inner), dtype=np.uint8)
    fastest_s = float("inf")
    for _ in range(_REPEATS):
        start_s = time.perf_counter()
        session.run(None, {"x": codes})
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
    return 2 * rows * inner * columns / fastest_s / 1e9


def _product(inner: int, columns: int, threads: int) -> Any:
    """A session of one MatMulInteger with constant weights."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(1).integers(-127, 127, (inner, columns), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", columns])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array(128, dtype=np.uint8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
