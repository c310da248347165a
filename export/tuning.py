"""What may be fitted after the graph is chosen: a temperature, and thresholds. Pure.

Both are fitted on training rows. A network is surer of those than of others, so the temperature
found is a lower bound of the right one; the exam says what it is worth.
"""

from __future__ import annotations

import numpy as np

from export.exam import Bools
from serving.engine import probabilities
from serving.package import Task
from serving.session import Logits

_TEMPERATURES = np.geomspace(0.25, 8.0, 201)
_TINY = 1e-7


def fit_temperature(logits: Logits, truth: Bools, task: Task) -> float:
    """The temperature of the least log loss: logits (N, L) are divided by it."""
    losses = [_log_loss(logits, truth, task, float(value)) for value in _TEMPERATURES]
    return round(float(_TEMPERATURES[int(np.argmin(losses))]), 4)


def fit_thresholds(logits: Logits, truth: Bools, *, temperature: float = 1.0) -> tuple[float, ...]:
    """For each label the probability from which on giving it has the best F1.

    0.5 for a label that no row has. Between two scores the threshold lies in the middle.
    """
    chances = probabilities(logits, "multi_label", temperature)
    return tuple(
        _best_threshold(chances[:, label], truth[:, label]) for label in range(truth.shape[1])
    )


def _best_threshold(chances: Logits, truth: np.ndarray) -> float:
    if not truth.any():
        return 0.5
    order = np.argsort(-chances, kind="stable")
    scores = chances[order].astype(np.float64)
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + truth.sum())
    last_of_its_score = np.append(scores[:-1] != scores[1:], True)
    best = int(np.argmax(np.where(last_of_its_score, f1, -1.0)))
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return round(float((scores[best] + below) / 2), 6)


def _log_loss(logits: Logits, truth: Bools, task: Task, temperature: float) -> float:
    chances = probabilities(logits, task, temperature).astype(np.float64)
    if task == "single_label":
        return float(-np.log(np.maximum(chances[truth], _TINY)).mean())
    right = np.where(truth, chances, 1 - chances)
    return float(-np.log(np.maximum(right, _TINY)).mean())
