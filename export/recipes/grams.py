"""What the products of a graph get to multiply, text by text: X^T X of each one's inputs.

Texts are run alone, so padding is in none. Memory is bounded: where all do not fit at once, the texts
are run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from export.recipes.graph import Array, Graph
from export.recipes.probe import Probe, feeds
from export.recipes.rounding import Floats
from export.recipes.rowwise import matrix
from serving.session import Encoding

_GRAM_BYTES = 288 * 2**20  # held at once: of six layers of BERT-base
_ROWS = 512  # of inputs, held until they are multiplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """X @ weight (K, N), and what is known of X. gram (K, K): X^T X. out: name of its output."""

    out: str
    weight: Floats
    gram: Floats


def products(
    model: onnx.ModelProto,
    texts: Sequence[Encoding],
    *,
    pad_token_id: int,
    advance: Callable[[int], object],
) -> Iterator[Product]:
    """Every product of an activation with a constant matrix, with its inputs in *texts*.

    *advance* is told of each text that was run, and of each product that is done with.
    """
    graph = Graph(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        computed = node.op_type == "MatMul" and graph.maker(node.input[0]) is not None
        if computed and matrix(graph, node.input[1]) is not None:
            readers.setdefault(node.input[0], []).append(node)
    sizes = {name: _gram_bytes(graph, nodes[0]) for name, nodes in readers.items()}
    probe = Probe(model, list(readers))
    for names in _groups(sizes):
        seen = _Grams()
        for feed in feeds(texts, list(probe.inputs()), pad_token_id=pad_token_id):
            seen.add(probe.run(feed, names))
            advance(1)
        grams = seen.sums()
        for name in names:
            gram = grams.pop(name)  # nobody else holds it
            for node in readers[name]:
                weight = matrix(graph, node.input[1])
                assert weight is not None, "a product lost its weight; this is a bug"
                yield Product(out=node.output[0], weight=weight, gram=gram)
                advance(1)


def _gram_bytes(graph: Graph, node: onnx.NodeProto) -> int:
    rows = graph.constants[node.input[1]].dims[0]
    return int(rows * rows * np.dtype(np.float32).itemsize)


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Names in their order, as many at a time as may be held, but at least one."""
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if group and held + size > _GRAM_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


class _Grams:
    """X^T X of each tensor, of rows that come a text at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        self._held: dict[str, list[Array]] = {}
        self._rows = 0  # held of the tensor that has most

    def add(self, values: Mapping[str, Array]) -> None:
        """Tensor name -> (.., K)."""
        for name, value in values.items():
            self._held.setdefault(name, []).append(value.reshape(-1, value.shape[-1]))
        self._rows += max(value.size // value.shape[-1] for value in values.values())
        if self._rows >= _ROWS:
            self._multiply()

    def sums(self) -> dict[str, Floats]:
        """Tensor name -> (K, K), of all that came."""
        self._multiply()
        return self._sums

    def _multiply(self) -> None:
        for name, pieces in self._held.items():
            x = np.concatenate(pieces)
            gram = x.T @ x
            if name in self._sums:
                self._sums[name] += gram
            else:
                self._sums[name] = gram
        self._held.clear()
        self._rows = 0
