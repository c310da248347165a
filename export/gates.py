"""What a candidate must prove before it is packaged. Pure: answers in, verdict out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.answers import Answers
from export.exam import Bools, Exam
from export.options import ExportOptions
from serving.engine import Logits, probabilities
from serving.package import Task

# fp32 kernels round differently for other shapes; what stays below this is the same answer.
ROUNDING = 1e-4
_Z95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the exam said of one candidate; rates and accuracies are shares (0..1).

    accuracy: rows that are wholly right. label_flip_rate: rows that fp32 answers otherwise;
    multi-label: any of their labels. Intervals: 95 %, Wilson's. batch_flip_rate: rows answered
    otherwise in company than alone. batch_invariant: whether batches may be served. max_ and
    mean_probability_change: over rows, of the label that changed most. reasons: why it failed,
    empty when it passed.
    """

    name: str
    accuracy: float
    macro_f1: float
    label_flip_rate: float
    flip_interval: tuple[float, float]
    batch_flip_rate: float
    batch_flip_interval: tuple[float, float]
    batch_max_logit_difference: float
    batch_bit_equal: bool
    batch_invariant: bool
    deterministic: bool
    max_probability_change: float
    mean_probability_change: float
    model_bytes: int
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it may be packaged."""
        return not self.reasons

    def document(self) -> dict[str, Any]:
        """One entry of `gates.json`; what is not a number is null there."""
        numbers = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }
        return {**numbers, "passed": self.passed}


def judge_answers(
    name: str,
    answers: Answers,
    *,
    fp32: Answers,
    exam: Exam,
    options: ExportOptions,
) -> Verdict:
    """The verdict on *answers*, held to *fp32* and to the truth."""
    task, truth, total = exam.task, exam.truth(), len(exam.rows)
    given, expected = decisions(answers.alone, task), decisions(fp32.alone, task)
    flips = _differing(given, expected)
    batch_flips = _differing(decisions(answers.mixed, task), given)
    with np.errstate(invalid="ignore"):  # a broken candidate may give infinities
        change = np.abs(probabilities(answers.alone, task) - probabilities(fp32.alone, task))
        batch_difference = float(np.abs(answers.mixed - answers.alone).max())
    right, fp32_right = (total - _differing(sheet, truth) for sheet in (given, expected))
    # From counts, not from shares: a budget just reached is kept.
    drop_points, flip_percent = 100 * (fp32_right - right) / total, 100 * flips / total
    batch_interval = wilson(batch_flips, total)
    return Verdict(
        name=name,
        accuracy=right / total,
        macro_f1=macro_f1(given, truth),
        label_flip_rate=flips / total,
        flip_interval=wilson(flips, total),
        batch_flip_rate=batch_flips / total,
        batch_flip_interval=batch_interval,
        batch_max_logit_difference=batch_difference,
        batch_bit_equal=np.array_equal(answers.mixed, answers.alone),
        # Either company changes nothing, or the exam is large enough to prove how little.
        batch_invariant=(batch_flips == 0 and batch_difference <= ROUNDING)
        or 100 * batch_interval[1] <= options.max_batch_flip_percent,
        deterministic=answers.deterministic,
        max_probability_change=float(change.max()),
        mean_probability_change=float(change.max(axis=1).mean()),
        model_bytes=answers.model_bytes,
        reasons=_reasons(answers, drop_points, flip_percent, options),
    )


def _reasons(
    answers: Answers, drop_points: float, flip_percent: float, options: ExportOptions
) -> tuple[str, ...]:
    """Why it may not be packaged.

    That company changes its answers is no reason: such a package is served one text at a time.
    """
    found = []
    if not np.isfinite(answers.alone).all():
        found.append("some answers are not numbers")
    if not answers.deterministic:
        found.append("the same text asked twice gives different bits")
    if drop_points > options.max_accuracy_drop_points:
        allowed = f"{options.max_accuracy_drop_points:g}"
        found.append(f"accuracy falls by {drop_points:.2f} points, more than {allowed}")
    if flip_percent > options.max_flip_percent:
        allowed = f"{options.max_flip_percent:g}"
        found.append(f"{flip_percent:.2f} % of answers differ from fp32, more than {allowed} %")
    return tuple(found)


def decisions(logits: Logits, task: Task) -> Bools:
    """(N, L): which labels are given, as serving gives them without thresholds of its own."""
    if task == "multi_label":
        return np.asarray(probabilities(logits, task) >= 0.5)  # noqa: PLR2004
    return np.asarray(np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)])


def macro_f1(given: Bools, truth: Bools) -> float:
    """Mean F1 over labels; a label neither given nor true scores 0, as training counts it."""
    hits = (given & truth).sum(axis=0)
    total = given.sum(axis=0) + truth.sum(axis=0)
    return float(np.mean(2 * hits / np.maximum(total, 1)))


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share: Wilson's, which stays in 0..1 and is honest for few rows."""
    share, z2 = count / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def _differing(left: Bools, right: Bools) -> int:
    return int((left != right).any(axis=1).sum())
