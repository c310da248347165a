"""Row-wise int8 whose weights are rounded for the inputs that training texts give them.

Half the steps are twice the rounding; `round_making_up` takes back more than that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.recipes.grams import products
from export.recipes.material import Material
from export.recipes.rounding import Rounded, round_making_up
from export.recipes.rowwise import quantize_rowwise
from serving.session import Encoding

ROUNDING = "rounding.json"  # how the weights of the graph beside it were rounded
_TOKENS = 6144  # looked at; the widest matrix of BERT-base has 3,072 rows


def quantize_compensated(material: Material, target: Path, *, weight_steps: int) -> None:
    """As `quantize_rowwise`, which it is where there are no training texts.

    Writes how it was done beside *target*.
    """
    model = onnx.load(str(material.slim))
    texts = _some(material.calibration)
    rounded: dict[str, Rounded] = {}
    ratios: list[float] = []
    if texts:
        found = products(model, texts, pad_token_id=material.pad_token_id, advance=material.advance)
        for product in found:
            made_up = round_making_up(product.weight, product.gram, weight_steps)
            rounded[product.out] = made_up.rounded
            ratios.append(made_up.error_ratio)
    onnx.save(quantize_rowwise(model, weight_steps=weight_steps, rounded=rounded), str(target))
    target.with_name(ROUNDING).write_text(json.dumps(_said(texts, ratios)))


def _some(texts: Sequence[Encoding]) -> Sequence[Encoding]:
    """The first, up to so many tokens together."""
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, _TOKENS)) + 1]


def _said(texts: Sequence[Encoding], ratios: Sequence[float]) -> dict[str, Any]:
    """As `gates.json` has it."""
    if not ratios:
        return {"rounded": "to nearest, for want of training texts", "products": 0}
    return {
        "rounded": "so that errors make up for each other (GPTQ)",
        "products": len(ratios),
        "training_texts": len(texts),
        "training_tokens": sum(map(len, texts)),
        "median_squared_error_ratio": round(float(np.median(ratios)), 3),
    }
