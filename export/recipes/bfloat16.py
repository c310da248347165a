"""Products in bfloat16, all that lies between them in float32, as autocast has it; for a GPU.

ONNX Runtime's CUDA kernels know bfloat16 for products, but not for every step around them.
"""

from __future__ import annotations

import ml_dtypes
import onnx
from onnx import TensorProto

from export.recipes.graph import Graph
from export.recipes.rowwise import matrix


def multiply_in_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite *model*: every MatMul by a constant matrix takes and gives bfloat16."""
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "MatMul"]:
        x, name, out = node.input[0], node.input[1], node.output[0]
        weight = matrix(graph, name)
        if weight is None:
            continue
        if f"{name}/bf16" not in graph.constants:
            graph.set_constant(f"{name}/bf16", weight.astype(ml_dtypes.bfloat16))
        if graph.maker(f"{x}/bf16") is None:  # queries, keys and values read the same input
            graph.add("Cast", [x], f"{x}/bf16", to=TensorProto.BFLOAT16)
        raw = graph.add("MatMul", [f"{x}/bf16", f"{name}/bf16"], f"{out}/raw")
        graph.replace(node, onnx.helper.make_node("Cast", [raw], [out], to=TensorProto.FLOAT))
    return graph.seal()
