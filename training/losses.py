"""The loss of a batch, and weights that let rare labels count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

_MAX_POSITIVE_WEIGHT = 20.0


def balanced_weights(targets: npt.NDArray[Any], *, labels: int) -> npt.NDArray[np.float32]:
    """Weights (L,) that let every label count the same, however rare.

    Single-label: rows / (L x count). Multi-label: absences / presences, between 1 and 20, beyond
    which a handful of rows would rule the loss.
    """
    if targets.ndim == 1:
        counts = np.maximum(np.bincount(targets, minlength=labels), 1)
        return (len(targets) / (labels * counts)).astype(np.float32)
    present = np.maximum(targets.sum(axis=0), 1)
    weights = np.clip((len(targets) - present) / present, 1, _MAX_POSITIVE_WEIGHT)
    return np.asarray(weights, dtype=np.float32)


def batch_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    row_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean loss (): cross entropy for targets (B,), binary cross entropy for targets (B, L).

    logits (B, L) of any float type; weights (L,) as `balanced_weights` makes them, or None.
    row_weights (B,): the weighted sum of the rows' losses instead of their mean.
    """
    exact = logits.float()
    weight = None if weights is None else weights.to(logits.device)
    if targets.ndim == 1:
        # Not torch's weighted mean: it divides by the batch's own weights, and so undoes them
        # where a batch has only common labels.
        losses = functional.cross_entropy(exact, targets, weight=weight, reduction="none")
    else:
        losses = functional.binary_cross_entropy_with_logits(
            exact, targets.float(), pos_weight=weight, reduction="none"
        )
    if row_weights is None:
        return losses.mean()
    return (losses.reshape(len(targets), -1).mean(dim=1) * row_weights).sum()
