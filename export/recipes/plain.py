"""fp32: as exported, slimmed, fused by ONNX Runtime's own optimizer; and halved for a GPU."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import onnx

from export.recipes.graph import Graph
from export.recipes.material import Material


def keep(material: Material, target: Path) -> None:
    """The graph as exported."""
    os.link(material.exported, target)


def keep_slim(material: Material, target: Path) -> None:
    """The slimmed graph."""
    os.link(material.slim, target)


def fuse(material: Material, target: Path) -> None:
    """Attention, GELU and layer norms as one node each, by `onnxruntime.transformers`."""
    onnx.save(_fused(material), str(target))


def halve(material: Material, target: Path) -> None:
    """Fused and in fp16, inputs and outputs aside; for CUDA."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(_fused(material), keep_io_types=True), str(target))


def _fused(material: Material) -> onnx.ModelProto:
    from onnxruntime.transformers.optimizer import optimize_model

    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    optimizer = optimize_model(
        str(material.exported),
        model_type="bert",  # its patterns hold for every post-norm encoder
        num_heads=material.heads,
        hidden_size=material.hidden_size,
        opt_level=0,  # ONNX Runtime makes its own fusions when it loads the graph
    )
    model: onnx.ModelProto = optimizer.model
    # Shapes it noted before the fusions are wrong after them, and quantizers believe them.
    del model.graph.value_info[:]
    return Graph(model).seal()
