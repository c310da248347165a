"""Static int8 (QDQ): activation scales measured once, on training texts, and never again.

A text's answer cannot depend on its company, but what the texts did not show is cut off. Each text
is run alone, so that padding is in no range.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import shape_inference
from onnxruntime.quantization import CalibrationDataReader

from export.recipes.graph import Array, Graph
from export.recipes.material import Material
from export.recipes.probe import Probe, feeds
from export.recipes.rowwise import quantize_embeddings
from serving.session import Encoding, Feed

_SMOOTH = 0.5  # how much of the spread of activations moves into the weights (SmoothQuant's alpha)
_TINY = 1e-5
_PERCENTILE = 99.99
_TEXTS = 96


def quantize_statically(
    material: Material, target: Path, *, method: str = "MinMax", smooth: bool = False
) -> None:
    """Weights int8 by column, activations uint8 by tensor, embeddings int8 by row.

    method: MinMax, Entropy or Percentile. smooth: first even out what differs between channels.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    logging.getLogger().setLevel(logging.ERROR)  # it logs advice on the root logger
    model = onnx.load(str(material.slim))
    model = smoothed(model, material) if smooth else model
    source = target.with_suffix(".float.onnx")
    onnx.save(shape_inference.infer_shapes(model), str(source))
    quantize_static(
        source,
        target,
        _Texts(material, model, one_length=method != "MinMax"),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
        extra_options={"MatMulConstBOnly": True, "CalibPercentile": _PERCENTILE},
    )
    source.unlink()
    graph = Graph(onnx.load(str(target)))
    quantize_embeddings(graph)
    onnx.save(graph.seal(), str(target))


def smoothed(model: onnx.ModelProto, material: Material) -> onnx.ModelProto:
    """SmoothQuant: x @ W as (x / s) @ (s W), s chosen so that neither has much wider channels."""
    graph = Graph(model)
    products: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type == "MatMul" and graph.constant(node.input[1]) is not None:
            products.setdefault(node.input[0], []).append(node)
    ranges = _channel_ranges(model, material, sorted(products))
    for number, (name, nodes) in enumerate(sorted(products.items())):
        weights = [graph.constant(node.input[1]) for node in nodes]
        widest = np.max([np.abs(weight).max(axis=1) for weight in weights if weight is not None], 0)
        scale = np.maximum(ranges[name], _TINY) ** _SMOOTH / np.maximum(widest, _TINY) ** (
            1 - _SMOOTH
        )
        scale = np.clip(scale, _TINY, None).astype(np.float32)
        factor = graph.set_constant(f"smooth/{number}/factor", (1 / scale).astype(np.float32))
        even = graph.add("Mul", [name, factor], f"smooth/{number}/even")
        for node, weight in zip(nodes, weights, strict=True):
            assert weight is not None, "a product with a constant lost it; this is a bug"
            node.input[0] = even
            node.input[1] = graph.set_constant(
                f"smooth/{number}/{node.input[1]}", weight * scale[:, None]
            )
    return graph.seal()


def _channel_ranges(
    model: onnx.ModelProto, material: Material, names: list[str]
) -> dict[str, Array]:
    """Largest |x| of each channel of each tensor over the calibration texts."""
    ranges: dict[str, Array] = {}
    probe = Probe(model, names)
    for feed in _feeds(material, model):
        for name, value in probe.run(feed).items():
            seen = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            ranges[name] = np.maximum(ranges.get(name, seen), seen)
    return ranges


def _feeds(
    material: Material, model: onnx.ModelProto, *, one_length: bool = False
) -> Iterator[Feed]:
    """The calibration texts, alone.

    one_length: only texts of a length that three in four reach, cut to it.
    """
    names = [node.name for node in model.graph.input]
    texts = material.calibration[:_TEXTS]
    if one_length:
        length = int(np.percentile([len(text) for text in texts], 25))
        texts = [_cut(text, length) for text in texts if len(text) >= length]
    yield from feeds(texts, names, pad_token_id=material.pad_token_id)


def _cut(text: Encoding, length: int) -> Encoding:
    """The first tokens of *text* and its last, the one that ends every text."""
    return Encoding(
        ids=(*text.ids[: length - 1], text.ids[-1]),
        type_ids=(*text.type_ids[: length - 1], text.type_ids[-1]),
    )


class _Texts(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime ships no types
    """The calibration texts as ONNX Runtime's quantizer asks for them.

    one_length: its histograms cannot hold tensors of different shapes.
    """

    def __init__(self, material: Material, model: onnx.ModelProto, *, one_length: bool) -> None:
        self._feeds = _feeds(material, model, one_length=one_length)

    def get_next(self) -> Feed | None:
        """The next text; None after the last."""
        return next(self._feeds, None)
