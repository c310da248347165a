"""Stock dynamic int8, by ONNX Runtime's quantizer: one activation scale over the whole batch.

A text's answer therefore depends on its company; the gates see it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from export.recipes.material import Material
from export.recipes.plain import fuse


def quantize_dynamically(  # noqa: PLR0913 - the quantizer's own choices
    material: Material,
    target: Path,
    *,
    per_channel: bool = True,
    fused: bool = False,
    signed_weights: bool = True,
    reduce_range: bool = False,
) -> None:
    """Weights int8 by column or by tensor, activations uint8.

    reduce_range: 7-bit weights, which cannot overflow where int8 products are added in pairs
    (x86 without VNNI).
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)  # it logs advice on the root logger
    prepared = target.with_suffix(".prepared.onnx")
    if fused:
        fuse(material, prepared)
    else:
        # Shapes only: ONNX Runtime's own fusions make nodes that the quantizer cannot type.
        quant_pre_process(
            material.exported, prepared, skip_optimization=True, skip_symbolic_shape=True
        )
    quantize_dynamic(
        prepared,
        target,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8 if signed_weights else QuantType.QUInt8,
        # Fused nodes have outputs of no known type; all of them are float.
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
    )
    prepared.unlink()
