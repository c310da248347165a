"""The five nodes by which an exporter writes GELU, as the one that means it."""

from __future__ import annotations

from math import sqrt

import onnx

from export.recipes.graph import MICROSOFT, Graph

_CLOSE = 1e-4


def fuse_gelu(graph: Graph) -> None:
    """x / 2 (1 + erf(x / sqrt 2)), in whatever order it is multiplied, becomes Gelu(x)."""
    readers = graph.readers()
    for erf in [node for node in graph.nodes if node.op_type == "Erf"]:
        x = _before_erf(graph, erf)
        plus = readers.get(erf.output[0], [])
        if x is None or len(plus) != 1 or not _is_plus_one(graph, plus[0]):
            continue
        factors: list[str] = []
        product = plus[0].output[0]
        while len(readers.get(product, ())) == 1 and readers[product][0].op_type == "Mul":
            node = readers[product][0]
            factors.append(node.input[1] if node.input[0] == product else node.input[0])
            product = node.output[0]
            if _is_half_of(graph, factors, x):
                new = onnx.helper.make_node("Gelu", [x], [product], domain=MICROSOFT)
                graph.replace(node, new)
                break


def _before_erf(graph: Graph, erf: onnx.NodeProto) -> str | None:
    """x of erf(x / sqrt 2)."""
    node = graph.maker(erf.input[0])
    if node is None or node.op_type not in ("Div", "Mul"):
        return None
    wanted = sqrt(2) if node.op_type == "Div" else 1 / sqrt(2)
    return node.input[0] if _is(graph, node.input[1], wanted) else None


def _is_plus_one(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type == "Add" and any(_is(graph, name, 1.0) for name in node.input)


def _is_half_of(graph: Graph, factors: list[str], x: str) -> bool:
    """Whether *factors* multiply to x / 2."""
    if len(factors) == 1:
        half = graph.maker(factors[0])
        return (
            half is not None and half.op_type == "Mul" and _is_half_of(graph, list(half.input), x)
        )
    return x in factors and any(_is(graph, name, 0.5) for name in factors)


def _is(graph: Graph, name: str, wanted: float) -> bool:
    value = graph.constant(name)
    return value is not None and value.size == 1 and abs(float(value.reshape(())) - wanted) < _CLOSE
