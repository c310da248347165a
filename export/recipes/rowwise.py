"""Row-wise int8: the same bits for a text, alone and in any batch.

Stock dynamic quantization takes one activation scale over the whole batch, so a text's answer
depends on its neighbours. Here every token has its own scale, every weight column its own, and every
embedding row its own. Activations are uint8 around 128: on x86 signed ones fall off the fast kernel.

x86 without VNNI adds products in pairs, in 16 bits, where 255 x 127 x 2 has no room. Weights of
`NARROW_STEPS` have (255 x 64 x 2 = 32,640); with wider ones ONNX Runtime is told to take a slower,
exact kernel (`serving.session`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.recipes.graph import MICROSOFT, Graph, attribute
from export.recipes.rounding import Rounded, round_to_nearest

_STEPS = 127  # symmetric: -127..127, so that 128 + q never leaves uint8
NARROW_STEPS = 64
_TINY = 1e-12  # a row of zeros has no scale; any positive one gives zeros back
_GELU_FLOOR = 0.17  # GELU is never below -0.17, so its largest value, or this, bounds its size


def quantize_rowwise(  # noqa: PLR0913 - every one but the first has a default that is right
    model: onnx.ModelProto,
    *,
    keep: Collection[str] = (),
    signed: bool = False,
    embeddings: bool = True,
    weight_steps: int = _STEPS,
    rounded: Mapping[str, Rounded] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Rewrite *model*: constant MatMuls to MatMulInteger, embeddings to int8. It must be slimmed.

    keep: weights that stay in float32; embeddings: whether they become int8. signed: activations as int8, which arm64 multiplies faster.
    weight_steps: the largest code of a weight. rounded: output of a product -> its weight, where it
    is not to be rounded to nearest. The graph must be of opset 18 or later, where ReduceMax takes
    its axes as an input.
    """
    rewriter = _Rewriter(Graph(model), signed=signed)
    graph = rewriter.graph
    for node in list(graph.nodes):
        if node.op_type == "Gelu" and node.domain == MICROSOFT:
            rewriter.approximate_gelu(node)
    for node in list(graph.nodes):
        weight = matrix(graph, node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and node.input[1] not in keep:
            made = rounded.get(node.output[0]) or round_to_nearest(weight, weight_steps)
            rewriter.quantize_product(node, made)
    if embeddings:
        quantize_embeddings(graph)
    return graph.seal()


class _Rewriter:
    """The constants all rewritten nodes share, and which activations are quantized already."""

    def __init__(self, graph: Graph, *, signed: bool) -> None:
        self.graph = graph
        zero = np.array(0, dtype=np.int8) if signed else np.array(128, dtype=np.uint8)
        self._zero = graph.set_constant("rowwise/zero", zero)
        self._one = graph.set_constant("rowwise/one", np.array(1, dtype=np.float32))
        self._steps = graph.set_constant("rowwise/steps", np.array(_STEPS, dtype=np.float32))
        self._tiny = graph.set_constant("rowwise/tiny", np.array(_TINY, dtype=np.float32))
        self._floor = graph.set_constant("rowwise/floor", np.array(_GELU_FLOOR, dtype=np.float32))
        self._last = graph.set_constant("rowwise/last", np.array([-1], dtype=np.int64))
        self._quantized: dict[str, tuple[str, str]] = {}  # activation -> its codes, its row tops

    def approximate_gelu(self, node: onnx.NodeProto) -> None:
        """GELU by tanh: off by at most 0.0005, far below one int8 step, and 1.4 times as fast."""
        new = onnx.helper.make_node("FastGelu", node.input, node.output, domain=MICROSOFT)
        self.graph.replace(node, new)

    def quantize_product(self, node: onnx.NodeProto, weight: Rounded) -> None:
        """X (.., K) @ W (K, N): integers, rescaled by column in the product and by row after it."""
        name, out = node.input[1], node.output[0]
        codes, row_top = self._quantize(node.input[0])
        # Each product has a weight of its own: on x86 without VNNI ONNX Runtime makes another of it,
        # and fails on the second product of one weight (DeBERTa's keys and positions share theirs).
        own = f"{out}/{name}" if f"{name}/int8" in self.graph.constants else name
        self.graph.set_constant(f"{own}/int8", weight.codes)
        self.graph.set_constant(f"{own}/scale", weight.scale / np.float32(_STEPS))
        raw = self.graph.add(
            "MatMulIntegerToFloat",
            [codes, f"{own}/int8", self._one, f"{own}/scale", self._zero],
            f"{out}/raw",
            domain=MICROSOFT,
        )
        self.graph.replace(node, onnx.helper.make_node("Mul", [raw, row_top], [out]))

    def _quantize(self, x: str) -> tuple[str, str]:
        """x (.., K) float -> its codes, and (.., 1), the row's largest |x|, from that row alone.

        Queries, keys and values read the same input: it is quantized once.
        """
        if x not in self._quantized:
            add = self.graph.add
            maker = self.graph.maker(x)
            if maker is not None and maker.op_type == "FastGelu":
                top = add("ReduceMax", [x, self._last], f"{x}/max", keepdims=1)
                top = add("Clip", [top, self._floor], f"{x}/top")
            else:
                size = add("Abs", [x], f"{x}/abs")
                top = add("ReduceMax", [size, self._last], f"{x}/max", keepdims=1)
                top = add("Clip", [top, self._tiny], f"{x}/top")
            finer = add("Div", [self._steps, top], f"{x}/finer")
            steps = add("Mul", [x, finer], f"{x}/steps")
            # With scale 1 it rounds, shifts and narrows in one pass.
            codes = add("QuantizeLinear", [steps, self._one, self._zero], f"{x}/codes")
            self._quantized[x] = codes, top
        return self._quantized[x]


def quantize_embeddings(graph: Graph) -> None:
    """Look int8 codes and their row's scale up instead of floats."""
    for node in list(graph.nodes):
        table = matrix(graph, node.input[0]) if _looks_up_rows(node) else None
        if table is None:
            continue
        name, ids, out = node.input[0], node.input[1], node.output[0]
        if f"{name}/int8" not in graph.constants:
            rows = np.maximum(np.abs(table).max(axis=1, keepdims=True), _TINY) / _STEPS
            graph.set_constant(f"{name}/int8", np.rint(table / rows).astype(np.int8))
            graph.set_constant(f"{name}/scale", rows.astype(np.float32))
        codes = graph.add("Gather", [f"{name}/int8", ids], f"{out}/codes")
        raw = graph.add("Cast", [codes], f"{out}/raw", to=TensorProto.FLOAT)
        scale = graph.add("Gather", [f"{name}/scale", ids], f"{out}/rows")
        graph.replace(node, onnx.helper.make_node("Mul", [raw, scale], [out]))


def compress_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """int8 weights by column, multiplied as floats here: OpenVINO makes row-wise int8 of them.

    Its CPU plugin quantizes each token's activations itself (`DYNAMIC_QUANTIZATION_GROUP_SIZE`).
    """
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "MatMul"]:
        name = node.input[1]
        weight = matrix(graph, name)
        if graph.maker(f"{name}/float") is not None:  # another product has the same weight
            node.input[1] = f"{name}/float"
        elif weight is not None:
            made = round_to_nearest(weight, _STEPS)
            codes = graph.set_constant(f"{name}/int8", made.codes)
            scale = graph.set_constant(f"{name}/scale", made.scale)
            node.input[1] = graph.add("DequantizeLinear", [codes, scale], f"{name}/float", axis=1)
    quantize_embeddings(graph)
    return graph.seal()


def matrix(graph: Graph, name: str) -> npt.NDArray[np.float32] | None:
    """The float32 matrix of that name, when it is a constant of the graph."""
    value = graph.constant(name)
    return value if value is not None and value.ndim == 2 and value.dtype == np.float32 else None  # noqa: PLR2004


def _looks_up_rows(node: onnx.NodeProto) -> bool:
    """Whether *node* takes whole rows of its first input: the way embeddings are read."""
    return node.op_type == "Gather" and attribute(node, "axis", 0) == 0
