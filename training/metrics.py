"""How good answers are: numbers from logits and truths, pure, with their table and document.

N rows, L labels. Single-label: softmax, the highest logit wins. Multi-label: a sigmoid for each
label, given from 0.5 on. It knows no model, no text and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

THRESHOLD = 0.5
RELIABILITY_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """One label against the rest; support: rows that truly have it. 0 where nothing is defined."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Answers given with a confidence in (low, high]: how many, how sure, how often right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What an exam says.

    accuracy: share of rows that are wholly right; for multi-label that is the exact match. loss:
    mean cross entropy, binary for multi-label, nats. macro_f1: plain mean over all labels.
    ece: expected calibration error over `reliability`; for multi-label over all N x L answers.
    confusion: rows are truths, columns answers; None for multi-label.
    """

    task: Literal["single_label", "multi_label"]
    rows: int
    loss: float
    accuracy: float
    micro_f1: float
    macro_f1: float
    ece: float
    per_label: tuple[LabelScore, ...]
    reliability: tuple[ReliabilityBin, ...]
    confusion: tuple[tuple[int, ...], ...] | None

    def summary(self) -> dict[str, float]:
        """The closing numbers, one float each."""
        numbers = {
            "accuracy": self.accuracy,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "loss": self.loss,
        }
        if self.task == "multi_label":
            numbers["exact_match"] = self.accuracy
        return numbers

    def document(self) -> dict[str, Any]:
        """JSON-able: the summary, the table and the matrix."""
        return {
            **self.summary(),
            "rows": self.rows,
            "per_label": [asdict(score) for score in self.per_label],
            "confusion": self.confusion,
            "reliability": [asdict(entry) for entry in self.reliability if entry.count],
        }


def single_label_scores(
    logits: npt.NDArray[Any], truths: npt.NDArray[Any], labels: Sequence[str]
) -> Scores:
    """logits (N, L), truths (N,) label numbers, N > 0."""
    chances = softmax(logits)
    answers = chances.argmax(axis=1)
    right = answers == truths
    reliability = reliability_bins(chances.max(axis=1), right)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (truths, answers), 1)
    per_label = _per_label(
        labels,
        hits=confusion.diagonal(),
        answered=confusion.sum(axis=0),
        support=confusion.sum(axis=1),
    )
    return Scores(
        task="single_label",
        rows=len(truths),
        loss=float(row_losses(logits, truths).mean()),
        accuracy=float(right.mean()),
        micro_f1=float(right.mean()),  # every wrong answer is one false and one missed label
        macro_f1=_mean_f1(per_label),
        ece=expected_calibration_error(reliability),
        per_label=per_label,
        reliability=reliability,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def multi_label_scores(
    logits: npt.NDArray[Any], truths: npt.NDArray[Any], labels: Sequence[str]
) -> Scores:
    """logits (N, L), truths (N, L) of 0 and 1, N > 0."""
    chances = sigmoid(logits)
    answers = (chances >= THRESHOLD).astype(np.int64)
    given = truths.astype(np.int64)
    right = answers == given
    reliability = reliability_bins(np.maximum(chances, 1 - chances).ravel(), right.ravel())
    hits, answered, support = (answers & given).sum(0), answers.sum(0), given.sum(0)
    per_label = _per_label(labels, hits=hits, answered=answered, support=support)
    return Scores(
        task="multi_label",
        rows=len(truths),
        loss=float(row_losses(logits, truths).mean()),
        accuracy=float(right.all(axis=1).mean()),
        micro_f1=_ratio(2 * hits.sum(), answered.sum() + support.sum()),
        macro_f1=_mean_f1(per_label),
        ece=expected_calibration_error(reliability),
        per_label=per_label,
        reliability=reliability,
        confusion=None,
    )


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Chances (N, L) that sum to 1 in each row."""
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(logits: npt.NDArray[Any]) -> Floats:
    """Chance of each label (N, L), each by itself; by tanh, which does not overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))


def row_losses(logits: npt.NDArray[Any], truths: npt.NDArray[Any]) -> Floats:
    """Loss of each row (N,), nats: cross entropy, or for (N, L) truths the mean binary one."""
    exact = logits.astype(np.float64)
    if truths.ndim == 1:
        top = exact.max(axis=1)
        normaliser = top + np.log(np.exp(exact - top[:, None]).sum(axis=1))
        return np.asarray(normaliser - exact[np.arange(len(exact)), truths])
    # log(1 + e^x) - x y, written so that no exponent is positive
    losses = np.maximum(exact, 0) - exact * truths + np.log1p(np.exp(-np.abs(exact)))
    return np.asarray(losses.mean(axis=1))


def reliability_bins(
    confidence: npt.NDArray[Any], right: npt.NDArray[Any]
) -> tuple[ReliabilityBin, ...]:
    """Answers by confidence, in equally wide bins (low, high] over 0 to 1; 0 is in the first."""
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    numbers = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, RELIABILITY_BINS - 1)
    bins = []
    for number in range(RELIABILITY_BINS):
        inside = numbers == number
        count = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                count=count,
                confidence=float(confidence[inside].mean()) if count else 0.0,
                accuracy=float(right[inside].mean()) if count else 0.0,
            )
        )
    return tuple(bins)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean distance between confidence and accuracy, each bin weighted by its answers."""
    total = sum(entry.count for entry in bins)
    return sum(entry.count * abs(entry.confidence - entry.accuracy) for entry in bins) / total


def _per_label(
    labels: Sequence[str], *, hits: Integers, answered: Integers, support: Integers
) -> tuple[LabelScore, ...]:
    """From counts (L,): answered rightly, answered at all, truly there."""
    return tuple(
        LabelScore(
            label=label,
            precision=_ratio(hits[number], answered[number]),
            recall=_ratio(hits[number], support[number]),
            f1=_ratio(2 * hits[number], answered[number] + support[number]),
            support=int(support[number]),
        )
        for number, label in enumerate(labels)
    )


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0


def _mean_f1(per_label: Sequence[LabelScore]) -> float:
    return sum(score.f1 for score in per_label) / len(per_label)
