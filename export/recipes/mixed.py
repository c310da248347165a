"""Row-wise int8 but for the layers that cause the flips, which stay in fp32."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx

from export.errors import RecipeUnfit
from export.recipes.graph import Graph
from export.recipes.material import Material
from export.recipes.rowwise import matrix, quantize_rowwise
from serving.session import Logits, open_session

SENSITIVITY = "sensitivity.json"  # layer -> share of answers that flip when it alone is int8
_LAYER = re.compile(r"(?:layers?|blocks?)[./](?:layer\.)?(\d+)")
_TEXTS = 48
_MOST = 1 / 3  # of the layers may stay in fp32; beyond that int8 is not worth its trouble


def quantize_mixed(material: Material, target: Path, *, signed: bool = False) -> None:
    """Leave the most sensitive layers out, one by one, until the training texts keep their answers.

    Writes the sensitivity of each layer beside *target*. Raises `RecipeUnfit` when there are no
    training texts, when nothing needs to be left out, and when too much would.
    """
    if not material.calibration:
        raise RecipeUnfit("the training texts it is calibrated on were not found")
    layers = _layers(material.slim)
    everything = frozenset(name for names in layers.values() for name in names)
    scratch = target.with_suffix(".trial.onnx")
    expected = _answers(material, material.slim)

    def damage(keep: Collection[str]) -> tuple[float, float]:
        model = quantize_rowwise(onnx.load(str(material.slim)), keep=keep, signed=signed)
        onnx.save(model, str(scratch))
        found = _answers(material, scratch)
        flips = float(np.mean(found.argmax(axis=1) != expected.argmax(axis=1)))
        return flips, float(np.abs(found - expected).mean())

    alone = {layer: damage(everything - frozenset(names)) for layer, names in layers.items()}
    sensitivity = {layer: flips for layer, (flips, _) in alone.items()}
    target.with_name(SENSITIVITY).write_text(json.dumps(sensitivity))
    left_out: list[str] = []
    worst_first = sorted(layers, key=lambda layer: alone[layer], reverse=True)
    for count in range(max(1, int(len(layers) * _MOST)) + 1):
        left_out = [name for layer in worst_first[:count] for name in layers[layer]]
        if damage(left_out)[0] <= material.flip_budget / 2:
            break
    else:
        raise RecipeUnfit("more than a third of the layers would have to stay in fp32")
    if not left_out:
        raise RecipeUnfit("row-wise int8 needs no exception: no layer flips an answer too many")
    scratch.replace(target)


def _layers(slim: Path) -> Mapping[str, list[str]]:
    """Layer -> names of its constant matrices; a product outside all layers stands for itself."""
    graph = Graph(onnx.load(str(slim)))
    layers: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op_type == "MatMul" and matrix(graph, node.input[1]) is not None:
            found = _LAYER.search(node.name)
            layer = f"layer {found.group(1)}" if found else node.name
            layers.setdefault(layer, []).append(node.input[1])
    return layers


def _answers(material: Material, path: Path) -> Logits:
    session = open_session(path, threads=1)
    texts = material.calibration[:_TEXTS]
    return np.concatenate(
        [session.run([text], pad_token_id=material.pad_token_id) for text in texts]
    )
