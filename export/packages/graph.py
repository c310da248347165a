"""What an ONNX file is made of. Knows neither texts nor packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import GraphUnreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """opsets: version by domain. operators: how many nodes, commonest first.

    parameter_bytes: constants by type, largest first. Subgraphs are counted, too.
    """

    opsets: Mapping[str, int]
    operators: Mapping[str, int]
    parameter_bytes: Mapping[str, int]

    @property
    def nodes(self) -> int:
        """All of them."""
        return sum(self.operators.values())


def read_graph(path: Path) -> GraphFacts:
    """Raises `GraphUnreadable`."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's own class, or ONNX's
        raise GraphUnreadable(
            f"{path} is no ONNX graph ({error}); export the package again."
        ) from error
    graphs = list(_graphs(model.graph))
    operators = Counter(_operator(node) for graph in graphs for node in graph.node)
    parameter_bytes: Counter[str] = Counter()
    for tensor in (tensor for graph in graphs for tensor in _constants(graph)):
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        # Raw data has the true size of types that numpy cannot pack, such as int4.
        size = len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes
        parameter_bytes[dtype] += size
    return GraphFacts(
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        operators=dict(operators.most_common()),
        parameter_bytes=dict(parameter_bytes.most_common()),
    )


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and those inside its nodes (If, Loop)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.HasField("t"))


def _operator(node: Any) -> str:
    """Operators of other domains with their domain: `com.microsoft.Gelu` is not `Gelu`."""
    own = node.domain in ("", "ai.onnx")
    return str(node.op_type if own else f"{node.domain}.{node.op_type}")
