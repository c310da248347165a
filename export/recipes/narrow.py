"""After the last attention, only the token that the head reads.

The head of BERT and its kin takes token 0 of the last layer. Whoever comes between the last
attention's keys and values and that choice works on each token by itself, so it need work on one.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod

import numpy as np
import onnx
from onnx import shape_inference

from export.recipes.graph import Graph, attribute, reads

Dims = tuple[int | None, ...]  # None: not known before the run
_EACH_BY_ITSELF = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Erf", "Tanh", "Sigmoid", "Relu", "Sqrt", "Cast", "Gelu")
)
_ALONG_LAST = frozenset(("LayerNormalization", "Softmax"))
_TOKENS = 1  # the axis of tokens in (B, T, H)


def keep_first_token(graph: Graph) -> None:
    """Where every reader of a tensor wants its first token alone, compute no more than that."""
    shapes = _shapes(graph.seal())
    wanted: dict[str, set[int | None]] = defaultdict(set)  # tensor -> axes cut to 1; None: whole
    for value in graph.model.graph.output:
        wanted[value.name].add(None)
    cuts: dict[str, list[int | None]] = {}  # node, by output -> axis along which inputs are cut
    narrow: dict[str, int] = {}
    for node in reversed(graph.model.graph.node):
        axes = [_TOKENS, None] if _takes_first_token(graph, node, shapes) else None
        if axes is None and len(node.output) == 1 and len(wanted[node.output[0]]) == 1:
            (axis,) = wanted[node.output[0]]
            axes = None if axis is None else _input_axes(graph, node, axis, shapes)
            if axes is not None and axis is not None:
                narrow[node.output[0]] = axis
        cuts[node.output[0]] = axes or [None] * len(node.input)
        for name, wish in zip(node.input, cuts[node.output[0]], strict=True):
            wanted[name].add(wish)
        for name in reads(node)[len(node.input) :]:  # the branches of an If
            wanted[name].add(None)
    for node in list(graph.nodes):
        for place, axis in enumerate(cuts.get(node.output[0], ())):
            name = node.input[place]
            if axis is not None and narrow.get(name) != axis:
                node.input[place] = _first(graph, name, axis)


def _takes_first_token(graph: Graph, node: onnx.NodeProto, shapes: dict[str, Dims]) -> bool:
    """x[:, 0] of a tensor (B, T, H)."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != _TOKENS:
        return False
    index = graph.constant(node.input[1])
    return (
        index is not None
        and index.shape == ()
        and int(index) == 0
        and len(shapes.get(node.input[0], ())) == len(("batch", "tokens", "hidden"))
    )


def _input_axes(  # noqa: PLR0911 - one rule an operator
    graph: Graph, node: onnx.NodeProto, axis: int, shapes: dict[str, Dims]
) -> list[int | None] | None:
    """Along which axis each input may be cut when the output is along *axis*; None: no way."""
    rank = len(shapes.get(node.output[0], ()))
    if not all(name in shapes for name in node.input) or rank == 0:
        return None
    whole: list[int | None] = [None] * len(node.input)
    if node.op_type in _EACH_BY_ITSELF:
        return [_broadcast_axis(shapes[name], axis, rank) for name in node.input]
    if node.op_type in _ALONG_LAST and attribute(node, "axis", -1) in (-1, rank - 1):
        return [axis, *whole[1:]] if axis != rank - 1 else None
    # Not through the products of attention: with one query ONNX Runtime adds up in another order
    # for another padding, and a text's bits would depend on its company.
    if node.op_type == "MatMul" and axis == rank - 2 and graph.constant(node.input[1]) is not None:
        return [axis, None]
    if node.op_type == "Transpose":
        return [attribute(node, "perm")[axis]]
    if node.op_type == "Reshape" and _keeps_axis(graph, node, axis, shapes):
        return [axis, None]
    return None


def _broadcast_axis(dims: Dims, axis: int, rank: int) -> int | None:
    """*axis* of an output of *rank* axes, in an input; None where the input is repeated along it."""
    place = axis - (rank - len(dims))
    return None if place < 0 or dims[place] == 1 else place


def _keeps_axis(graph: Graph, node: onnx.NodeProto, axis: int, shapes: dict[str, Dims]) -> bool:
    """Whether a Reshape leaves the batch and *axis* where they are, and only splits or joins after."""
    target, before = graph.constant(node.input[1]), shapes[node.input[0]]
    if target is None or axis != _TOKENS or target[0] != 0 or target[1] != -1:
        return False
    after = before[_TOKENS + 1 :]
    return None not in after and prod(filter(None, after)) == int(np.prod(target[_TOKENS + 1 :]))


def _first(graph: Graph, name: str, axis: int) -> str:
    """Tensor *name*, cut to its first element along *axis*."""
    output = f"{name}/first{axis}"
    if graph.maker(output) is None:
        places = [
            graph.set_constant(f"narrow/{value}", np.array([value], dtype=np.int64))
            for value in (0, 1, axis)
        ]
        graph.add("Slice", [name, *places], output)
    return output


def _shapes(model: onnx.ModelProto) -> dict[str, Dims]:
    """Name -> sizes of every tensor whose number of axes is known."""
    inferred = shape_inference.infer_shapes(model).graph
    found: dict[str, Dims] = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
    return found
