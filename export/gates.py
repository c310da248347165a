"""What a candidate must prove before it is packaged. Pure: answers in, verdict out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.answers import Answers
from export.exam import Bools, Exam
from export.options import ExportOptions
from serving.engine import probabilities
from serving.package import Task
from serving.session import Logits

# fp32 kernels round differently for other shapes; what stays below this is the same answer.
ROUNDING = 1e-4
_Z95 = 1.96
_BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the exam said of one candidate; rates and accuracies are shares (0..1).

    accuracy: rows that are wholly right. label_flip_rate: rows that fp32 answers otherwise;
    multi-label: any of their labels. Intervals: 95 %, Wilson's. batch_flip_rate: rows answered
    otherwise in company than alone. batch_invariant: whether batches may be served:
    company changes nothing, or the exam is large enough to prove how little. max_ and
    mean_probability_change: over rows, of the label that changed most. calibration_error: expected
    |confidence - share that is right|. exam_rows: judged on. reasons: why it failed, empty when it
    passed.
    """

    name: str
    exam_rows: int
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
    calibration_error: float
    model_bytes: int
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it may be packaged."""
        return not self.reasons

    @property
    def unsound(self) -> bool:
        """Whether it fails for what no number of further rows can mend."""
        return not self.deterministic or not math.isfinite(self.mean_probability_change)

    def document(self) -> dict[str, Any]:
        """One entry of `gates.json`; what is not a number is null there."""
        numbers = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }
        return {**numbers, "passed": self.passed}


def judge_answers(  # noqa: PLR0913 - each named at the call
    name: str,
    answers: Answers,
    *,
    fp32: Answers,
    exam: Exam,
    options: ExportOptions,
    model_bytes: int,
) -> Verdict:
    """The verdict on *answers* to the first rows of *exam*, held to *fp32* and to the truth."""
    task, total, mixed = exam.task, len(answers.alone), len(answers.mixed)
    truth, fp32_logits = exam.truth()[:total], fp32.alone[:total]
    given, expected = decisions(answers.alone, task), decisions(fp32_logits, task)
    flips = _differing(given, expected)
    batch_flips = _differing(decisions(answers.mixed, task), given[:mixed])
    change = probability_changes(answers.alone, fp32_logits, task)
    batch_difference = _largest_difference(answers.mixed, answers.alone[:mixed])
    right, fp32_right = (total - _differing(sheet, truth) for sheet in (given, expected))
    drop_points = 100 * (fp32_right - right) / total  # of counts: a budget just reached is kept
    batch_interval = wilson(batch_flips, mixed)
    return Verdict(
        name=name,
        exam_rows=total,
        accuracy=right / total,
        macro_f1=macro_f1(given, truth),
        label_flip_rate=flips / total,
        flip_interval=wilson(flips, total),
        batch_flip_rate=batch_flips / mixed,
        batch_flip_interval=batch_interval,
        batch_max_logit_difference=batch_difference,
        batch_bit_equal=np.array_equal(answers.mixed, answers.alone[:mixed]),
        batch_invariant=(batch_flips == 0 and batch_difference <= ROUNDING)
        or 100 * batch_interval[1] <= options.max_batch_flip_percent,
        deterministic=answers.deterministic,
        max_probability_change=float(change.max()),
        mean_probability_change=float(change.mean()),
        calibration_error=calibration_error(answers.alone, truth, task),
        model_bytes=model_bytes,
        reasons=_reasons(answers, drop_points, 100 * flips / total, options),
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


def probability_changes(left: Logits, right: Logits, task: Task) -> npt.NDArray[np.float32]:
    """(N,): |probability change| of the label that changed most."""
    with np.errstate(invalid="ignore"):  # a broken candidate may give infinities
        change = np.abs(probabilities(left, task) - probabilities(right, task))
    return np.asarray(change.max(axis=1))


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


def calibration_error(logits: Logits, truth: Bools, task: Task, temperature: float = 1.0) -> float:
    """Expected calibration error: |confidence - share right|, over 15 bins weighted by their rows.

    Of the likeliest label, or, multi-label, of every label.
    """
    chances = probabilities(logits, task, temperature)
    if task == "single_label":
        rows = np.arange(len(chances))
        top = chances.argmax(axis=1)
        chances, truth = chances[rows, top], truth[rows, top]
    confident, right = chances.ravel(), truth.ravel()
    if not np.isfinite(confident).all():
        return math.nan
    bins = np.minimum((confident * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, confident, _BINS) - np.bincount(bins, right, _BINS)
    return float(np.abs(gaps).sum() / len(confident))


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share: Wilson's, which stays in 0..1 and is honest for few rows."""
    share, z2 = count / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def _differing(left: Bools, right: Bools) -> int:
    return int((left != right).any(axis=1).sum())


def _largest_difference(left: Logits, right: Logits) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(left - right).max())
