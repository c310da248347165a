"""Row-wise int8: the same bits for a text, alone and in any batch.

Stock dynamic quantization takes one activation scale over the whole batch, so a text's answer
depends on its neighbours. Here every token has its own scale, every weight column its own, and every
embedding row its own. Activations are uint8 around 128: signed ones fall off the fast kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
_ZERO_POINT = 128
_STEPS = 127  # symmetric: -127..127, so that 128 + q never leaves uint8
_MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
_TINY = 1e-12  # a row of zeros has no scale; any positive one gives zeros back


def quantize_rowwise(source: Path, target: Path) -> None:
    """Rewrite the fp32 graph *source*: constant MatMuls to MatMulInteger, embeddings to int8.

    The graph must be of opset 18 or later, where ReduceMax takes its axes as an input.
    """
    model = onnx.load(str(source))
    _Rewriter(model.graph).rewrite()
    model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    onnx.save(model, str(target))


class _Rewriter:
    """One pass over a graph; new nodes go where the old ones stood, so the order stays valid."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._added: dict[str, onnx.TensorProto] = {}
        self._quantized: dict[
            str, tuple[str, str]
        ] = {}  # activation -> (name of codes, of row tops)
        self._constant("rowwise/zero", np.array(_ZERO_POINT, dtype=np.uint8))
        self._constant("rowwise/one", np.array(1, dtype=np.float32))
        self._constant("rowwise/steps", np.array(_STEPS, dtype=np.float32))
        self._constant("rowwise/tiny", np.array(_TINY, dtype=np.float32))
        self._constant("rowwise/last", np.array([-1], dtype=np.int64))

    def rewrite(self) -> None:
        """Replace what can be replaced, then drop the weights nobody reads any more."""
        nodes = [new for node in self._graph.node for new in self._replacement(node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._weights.values() if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend([*kept, *self._added.values()])

    def _replacement(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == "MatMul" and (weight := self._matrix(node.input[1])) is not None:
            yield from self._matmul(node, weight)
        elif _looks_up_rows(node) and (table := self._matrix(node.input[0])) is not None:
            yield from self._embedding(node, table)
        else:
            yield node

    def _matmul(self, node: onnx.NodeProto, weight: Floats) -> Iterator[onnx.NodeProto]:
        """X (.., K) @ W (K, N): integers, rescaled by column in the product and by row after it."""
        activation, name, out = node.input[0], node.input[1], node.output[0]
        if activation not in self._quantized:  # Q, K and V read the same input: quantize it once
            yield from self._quantize(activation)
        codes, row_top = self._quantized[activation]
        if f"{name}/int8" not in self._added:
            columns = np.maximum(np.abs(weight).max(axis=0), _TINY) / _STEPS
            self._constant(f"{name}/int8", np.rint(weight / columns).astype(np.int8))
            self._constant(f"{name}/scale", (columns / _STEPS).astype(np.float32))
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [codes, f"{name}/int8", "rowwise/one", f"{name}/scale", "rowwise/zero"],
            [f"{out}/raw"],
            name=f"{out}/integer",
            domain=_MICROSOFT,
        )
        yield helper.make_node("Mul", [f"{out}/raw", row_top], [out])

    def _quantize(self, x: str) -> Iterator[onnx.NodeProto]:
        """x (.., K) float -> x/uint8, and x/top (.., 1), the row's largest |x|, from it alone."""
        yield helper.make_node("Abs", [x], [f"{x}/abs"])
        yield helper.make_node("ReduceMax", [f"{x}/abs", "rowwise/last"], [f"{x}/max"], keepdims=1)
        yield helper.make_node("Max", [f"{x}/max", "rowwise/tiny"], [f"{x}/top"])
        yield helper.make_node("Div", ["rowwise/steps", f"{x}/top"], [f"{x}/finer"])
        yield helper.make_node("Mul", [x, f"{x}/finer"], [f"{x}/steps"])
        # With scale 1 it rounds, shifts and narrows in one pass.
        steps = [f"{x}/steps", "rowwise/one", "rowwise/zero"]
        yield helper.make_node("QuantizeLinear", steps, [f"{x}/uint8"])
        self._quantized[x] = (f"{x}/uint8", f"{x}/top")

    def _embedding(self, node: onnx.NodeProto, table: Floats) -> Iterator[onnx.NodeProto]:
        """Look int8 codes and their row's scale up instead of floats."""
        name, ids, out = node.input[0], node.input[1], node.output[0]
        if f"{name}/int8" not in self._added:
            rows = np.maximum(np.abs(table).max(axis=1, keepdims=True), _TINY) / _STEPS
            self._constant(f"{name}/int8", np.rint(table / rows).astype(np.int8))
            self._constant(f"{name}/scale", rows.astype(np.float32))
        yield helper.make_node("Gather", [f"{name}/int8", ids], [f"{out}/codes"])
        yield helper.make_node("Cast", [f"{out}/codes"], [f"{out}/raw"], to=TensorProto.FLOAT)
        yield helper.make_node("Gather", [f"{name}/scale", ids], [f"{out}/rows"])
        yield helper.make_node("Mul", [f"{out}/raw", f"{out}/rows"], [out])

    def _matrix(self, name: str) -> Floats | None:
        """The float32 matrix of that name, when it is a constant of the graph."""
        tensor = self._weights.get(name)
        if tensor is None or len(tensor.dims) != 2 or tensor.data_type != TensorProto.FLOAT:  # noqa: PLR2004
            return None
        return np.asarray(numpy_helper.to_array(tensor), dtype=np.float32)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> None:
        self._added[name] = numpy_helper.from_array(value, name)


def _looks_up_rows(node: onnx.NodeProto) -> bool:
    """Whether *node* takes whole rows of its first input: the way embeddings are read."""
    return node.op_type == "Gather" and all(
        attribute.i == 0 for attribute in node.attribute if attribute.name == "axis"
    )
