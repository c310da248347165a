"""From what was seen to what it means: weights of lengths, rates, ceilings, agreement. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.geometry import Geometry
from serving.engine import probabilities
from serving.package import Task
from serving.session import Logits

LENGTHS = (16, 32, 64, 128, 256, 512)
Cells = Mapping[tuple[int, int], float]  # (batch, length) -> milliseconds
Weights = Mapping[int, float]  # length -> share of the texts
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerAgreement:
    """Of *asked* texts, how many got fp32's answer alone and in batches of mixed lengths.

    max_probability_gap: the largest difference of a label's probability, over both.
    """

    asked: int
    alone: int
    together: int
    max_probability_gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What hardware can do at most. gflops: 1e9 operations/s of products in *precision*."""

    precision: str
    gflops: float
    gb_per_s: float


def roofs(peak: Mapping[str, Any]) -> dict[str, Roof]:
    """Precision -> its roof, of one device as `peaks` measured it."""
    return {
        precision: Roof(precision=precision, gflops=gflops, gb_per_s=peak["gb_per_s"])
        for precision, gflops in peak["gflops"].items()
    }


def grid_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths measured: powers of two below the model's longest, and that one."""
    return (*(length for length in LENGTHS if length < max_length), max_length)


def length_weights(lengths: Sequence[int], grid: Sequence[int]) -> dict[int, float]:
    """The share of texts that each length of *grid* stands for: those it holds and no shorter one.

    lengths: tokens of each text, none longer than the last of *grid*, which ascends.
    """
    counts = Counter(min(step for step in grid if step >= length) for length in lengths)
    return {step: counts[step] / len(lengths) for step in grid}


def texts_per_s(cells: Cells, weights: Weights, *, batch: int, lanes: int) -> float:
    """The rate of *lanes* lanes that run batches of *batch* texts of equal length."""
    ms = sum(weight * cells[batch, length] for length, weight in weights.items() if weight)
    return lanes * batch * 1e3 / ms


def ms_a_call(cells: Cells, weights: Weights, *, batch: int) -> float:
    """The mean time of a call of *batch* texts, over the lengths of the workload."""
    return sum(weight * cells[batch, length] for length, weight in weights.items() if weight)


def best_batch(
    rounds: Sequence[Cells], weights: Weights, batches: Sequence[int], *, lanes: int
) -> int:
    """The batch of the highest median rate: one for all rounds, or luck would count as speed."""

    def rate(batch: int) -> float:
        return statistics.median(
            texts_per_s(cells, weights, batch=batch, lanes=lanes) for cells in rounds
        )

    return max(batches, key=rate)


def ceiling_texts_per_s(geometry: Geometry, weights: Weights, roof: Roof, *, batch: int) -> float:
    """What the products alone would allow: the slower of multiplying and of reading the weights."""
    read_s = geometry.weights * _BYTES[roof.precision] / (roof.gb_per_s * 1e9)
    seconds = sum(
        weight * max(batch * geometry.gop(length) / roof.gflops, read_s)
        for length, weight in weights.items()
    )
    return batch / seconds


def agreement(expected: Logits, alone: Logits, together: Logits, task: Task) -> AnswerAgreement:
    """Of answers (texts, labels) with fp32's."""
    right = probabilities(expected, task)
    gaps = [np.abs(probabilities(found, task) - right).max() for found in (alone, together)]
    return AnswerAgreement(
        asked=len(expected),
        alone=_same(right, probabilities(alone, task), task),
        together=_same(right, probabilities(together, task), task),
        # A model that answers "not a number" is as far away as one can be.
        max_probability_gap=float(np.nan_to_num(max(gaps), nan=1.0)),
    )


def _same(right: Logits, found: Logits, task: Task) -> int:
    """Rows with the same answer: the likeliest label, or the set of labels above one half."""
    if task == "single_label":
        return int((right.argmax(axis=1) == found.argmax(axis=1)).sum())
    return int(((right >= _HALF) == (found >= _HALF)).all(axis=1).sum())
