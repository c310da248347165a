"""Logits of a model for encoded rows, batched by what the batch really costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.batches import by_tokens
from training.encode import EncodedRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.shared import Share

_MAX_TOKENS = {"cpu": 4096, "cuda": 65536, "mps": 16384}  # padded, a batch


def predict_logits(
    model: PreTrainedModel,
    rows: EncodedRows,
    collate: Callable[[list[dict[str, Any]]], Any],
    *,
    advance: Callable[[int], None] = lambda _: None,
    share: Share | None = None,
) -> npt.NDArray[np.float32]:
    """Logits (N, L) float32, in the order of *rows*; the model is left in evaluation mode.

    advance: told how many rows were done, after each batch. share: which of the workers this is that
    divide the batches among them; each gets all logits, the same as one alone.
    """
    import torch

    batches = by_tokens(rows.lengths, max_tokens=_MAX_TOKENS[model.device.type])
    logits = np.zeros((len(rows), model.config.num_labels), dtype=np.float32)
    model.train(mode=False)  # eval() carries no types in transformers
    with torch.no_grad():
        for numbers in batches[share.rank :: share.count] if share else batches:
            batch = collate([rows[int(number)] for number in numbers])
            batch.pop("labels")
            answers = model(**batch.to(model.device)).logits
            logits[numbers] = answers.float().cpu().numpy()
            advance(len(numbers))
    return share.summed(logits) if share else logits
