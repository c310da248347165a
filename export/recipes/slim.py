"""A graph without work that changes no answer.

What an exporter leaves in: sizes computed at run time that never change, the scaling of queries and
keys, which the weights can carry, GELU in five steps, and, after the last attention, every token but
the first, which alone is read by the head of BERT and its kin. Answers stay the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.recipes.gelu import fuse_gelu
from export.recipes.graph import Array, Graph
from export.recipes.narrow import keep_first_token
from export.recipes.probe import Probe

# Batches and lengths that differ in every way: what is equal in all depends on neither.
_PROBES = ((1, 5), (3, 17), (2, 8))
_SMALL = 16  # elements; larger tensors are activations, or cheap to keep


def slim(source: Path, *, longest: int) -> onnx.ModelProto:
    """The model at *source*, slimmed, for texts of at most *longest* tokens; opset as it was."""
    graph = Graph(onnx.load(str(source)))
    _fold(graph, longest)
    graph = Graph(graph.seal())
    _scale_weights(graph)
    keep_first_token(graph)  # before GELU becomes a node whose shape nobody infers
    fuse_gelu(graph)
    return graph.seal()


def _fold(graph: Graph, longest: int) -> None:
    """Replace by constants what no probe changes, and shapes by what they mean."""
    shapes = (*_PROBES, (1, longest))
    values = _probe(graph, shapes)
    for name, seen in values.items():
        if all(np.array_equal(value, seen[0]) for value in seen[1:]):
            graph.set_constant(name, seen[0])
    for node in graph.nodes:
        if node.op_type == "Reshape" and node.input[1] in values:
            shape = _relative(values[node.input[1]], shapes)
            if shape is not None:
                node.input[1] = graph.set_constant(f"{node.output[0]}/shape", shape)


def _probe(graph: Graph, shapes: Sequence[tuple[int, int]]) -> dict[str, list[Array]]:
    """Name -> value in each probe, of every small tensor that is computed."""
    names = [name for node in graph.nodes for name in node.output if name]
    probe = Probe(graph.model, names)
    drawn = np.random.default_rng(0)
    found: dict[str, list[Array]] = {}
    for shape in shapes:
        feed = {name: _probe_input(name, shape, drawn) for name in probe.inputs()}
        values = probe.run(feed, names)
        names = [name for name in names if values[name].size <= _SMALL]
        for name in names:
            found.setdefault(name, []).append(values[name])
    return {name: found[name] for name in names}


def _probe_input(
    name: str, shape: tuple[int, int], drawn: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Valid in every model: few token ids, the last token of each row padding, segment 0 and 1."""
    if name == "input_ids":
        return drawn.integers(3, 12, shape)
    values = np.ones(shape, dtype=np.int64)
    values[:, -1] = 0
    return values


def _relative(seen: list[Array], shapes: Sequence[tuple[int, int]]) -> Array | None:
    """One target shape for all probes: 0 copies a size of the input, -1 stands for what is left.

    None when more than one size would have to be -1.
    """
    rows = np.stack(seen)
    constant = (rows == rows[0]).all(axis=0)
    sizes = np.asarray(shapes)
    shape = np.where(constant, rows[0], -1)
    if not constant[0] and np.array_equal(rows[:, 0], sizes[:, 0]):
        shape[0] = 0  # the batch stays in front in every encoder
    return shape if (shape == -1).sum() <= 1 else None


def _scale_weights(graph: Graph) -> None:
    """Move constant factors up through what they commute with, into weight and bias."""
    for node in [n for n in graph.nodes if n.op_type == "Mul"]:
        factor = graph.constant(node.input[1])
        if factor is None or factor.size != 1:
            continue
        chain = _linear_chain(graph, node.input[0])
        for maker in chain:
            for place, name in enumerate(maker.input):
                value = graph.constant(name)
                if maker.op_type in ("Add", "MatMul") and value is not None:
                    scaled = (value * factor.reshape(())).astype(value.dtype)
                    maker.input[place] = graph.set_constant(f"{name}/{node.output[0]}", scaled)
        if chain:
            graph.redirect(node.output[0], node.input[0])


def _linear_chain(graph: Graph, name: str) -> list[onnx.NodeProto]:
    """The makers from tensor *name* up to a product with a constant matrix, all linear.

    Empty when there is another operator on the way, or someone else reads what is on it.
    """
    readers, chain = graph.readers(), []
    while (node := graph.maker(name)) is not None and len(readers[name]) == 1:
        constants = [p for p, given in enumerate(node.input) if graph.constant(given) is not None]
        chain.append(node)
        if node.op_type == "MatMul" and constants == [1]:
            return chain
        if node.op_type == "Add" and len(constants) == 1:
            name = node.input[1 - constants[0]]
        elif node.op_type in ("Transpose", "Reshape"):
            name = node.input[0]
        else:
            break
    return []
