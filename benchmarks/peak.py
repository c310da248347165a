"""What these cores can do at most, in int8 and fp32: the ceiling beside an engine's rate."""

from __future__ import annotations

import time
from collections.abc import Callable
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
class Peak:
    """gops: 1e9 operations a second (a multiply-add is two). how: by what, for people."""

    gops: float
    threads: int
    how: str


def measure_int8_peak(threads: int) -> Peak:
    """The best rate of a plain uint8 x int8 product of ONNX Runtime, over shapes and repeats.

    Nothing but the product: no scales, no quantizing. Published clock rates are of no use in a
    virtual machine, so the ceiling is measured like everything else.
    """
    return _best("MatMulInteger", _int8_product, threads)


def measure_fp32_peak(threads: int) -> Peak:
    """The same of a plain fp32 product."""
    return _best("MatMul", _fp32_product, threads)


Product = Callable[[int, int, int], tuple[Any, Any]]  # rows, inner, columns -> graph, codes


def _best(name: str, make: Product, threads: int) -> Peak:
    best = max((_best_gops(make, shape, threads), shape) for shape in _SHAPES)
    rows, inner, columns = best[1]
    how = f"best of {_REPEATS} x {len(_SHAPES)} plain {name} runs, at {rows}x{inner}x{columns}"
    return Peak(gops=best[0], threads=threads, how=how)


def _best_gops(make: Product, shape: tuple[int, int, int], threads: int) -> float:
    import onnxruntime as ort
    from onnx import helper

    rows, inner, columns = shape
    graph, given = make(rows, inner, columns)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fastest_s = float("inf")
    for _ in range(_REPEATS):
        start_s = time.perf_counter()
        session.run(None, {"x": given})
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
    return 2 * rows * inner * columns / fastest_s / 1e9


def _int8_product(rows: int, inner: int, columns: int) -> tuple[Any, Any]:
    """One MatMulInteger with constant weights, and what goes in."""
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
    return graph, np.random.default_rng(0).integers(0, 255, (rows, inner), dtype=np.uint8)


def _fp32_product(rows: int, inner: int, columns: int) -> tuple[Any, Any]:
    """One MatMul with constant weights, and what goes in."""
    from onnx import TensorProto, helper, numpy_helper

    drawn = np.random.default_rng(1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", columns])],
        [numpy_helper.from_array(drawn.random((inner, columns), dtype=np.float32), "w")],
    )
    return graph, drawn.random((rows, inner), dtype=np.float32)
