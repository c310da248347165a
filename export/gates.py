"""What a candidate must prove before it is packaged. Pure: answers in, verdict out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from export.answers import Answers
from export.exam import Bools, Exam
from export.options import ExportOptions
from serving.agreement import wilson
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

    accuracy: rows that are wholly right. Changes are against fp32 on the same rows, negative for a
    loss. label_flip_rate: rows that fp32 answers otherwise; multi-label: any of their labels.
    Intervals: 95 %. batch_flip_rate: rows answered otherwise in company than alone.
    batch_invariant: whether batches may be served: company changes nothing, or the exam is large
    enough to prove how little. max_ and mean_probability_change: over rows, of the label that
    changed most. calibration_error: expected |confidence - share that is right|. exam_rows: judged
    on. reasons: why it failed, empty when it passed.
    """

    name: str
    exam_rows: int
    accuracy: float
    accuracy_change: float
    accuracy_change_interval: tuple[float, float]
    macro_f1: float
    macro_f1_change: float
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
    reasons: tuple[str, ...] = ()

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
    batch_budget = options.max_batch_flip_percent
    measured = _measured(answers, fp32=fp32, exam=exam, batch_budget_percent=batch_budget)
    found = replace(measured, name=name, model_bytes=model_bytes)
    return replace(found, reasons=_reasons(found, answers, options))


def _measured(
    answers: Answers, *, fp32: Answers, exam: Exam, batch_budget_percent: float
) -> Verdict:
    """Every figure that the answers give; no name yet, and no reasons."""
    task, total, mixed = exam.task, len(answers.alone), len(answers.mixed)
    truth, fp32_logits = exam.truth()[:total], fp32.alone[:total]
    given, expected = decisions(answers.alone, task), decisions(fp32_logits, task)
    right, fp32_right = (total - _differing(sheet, truth) for sheet in (given, expected))
    flips = _differing(given, expected)
    batch_flips = _differing(decisions(answers.mixed, task), given[:mixed])
    change = probability_changes(answers.alone, fp32_logits, task)
    batch_difference = _largest_difference(answers.mixed, answers.alone[:mixed])
    batch_interval = wilson(batch_flips, mixed)
    return Verdict(
        name="",
        exam_rows=total,
        accuracy=right / total,
        accuracy_change=(right - fp32_right) / total,
        accuracy_change_interval=_change_interval(given, expected, truth),
        macro_f1=macro_f1(given, truth),
        macro_f1_change=macro_f1(given, truth) - macro_f1(expected, truth),
        label_flip_rate=flips / total,
        flip_interval=wilson(flips, total),
        batch_flip_rate=batch_flips / mixed,
        batch_flip_interval=batch_interval,
        batch_max_logit_difference=batch_difference,
        batch_bit_equal=np.array_equal(answers.mixed, answers.alone[:mixed]),
        batch_invariant=(batch_flips == 0 and batch_difference <= ROUNDING)
        or 100 * batch_interval[1] <= batch_budget_percent,
        deterministic=answers.deterministic,
        max_probability_change=float(change.max()),
        mean_probability_change=float(change.mean()),
        calibration_error=calibration_error(answers.alone, truth, task),
        model_bytes=0,
    )


def _reasons(found: Verdict, answers: Answers, options: ExportOptions) -> tuple[str, ...]:
    """Why it may not be packaged, and whether the rows are enough to be sure of that.

    That company changes its answers is no reason: such a package is served one text at a time.
    """
    reasons = []
    if not np.isfinite(answers.alone).all():
        reasons.append("some answers are not numbers")
    if not answers.deterministic:
        reasons.append("the same text asked twice gives different bits")
    drop, most = -found.accuracy_change, options.max_accuracy_drop_points
    if over(drop, most):
        least = -found.accuracy_change_interval[1]
        unsure = _unsure(found.exam_rows, least, most)
        reasons.append(f"accuracy falls by {100 * drop:.2f} points, more than {most:g}{unsure}")
    flips, most = found.label_flip_rate, options.max_flip_percent
    if over(flips, most):
        unsure = _unsure(found.exam_rows, found.flip_interval[0], most)
        reasons.append(
            f"{100 * flips:.2f} % of answers differ from fp32, more than {most:g} %{unsure}"
        )
    return tuple(reasons)


def over(share: float, budget_percent: float) -> bool:
    """Rounded, for shares are of counts: a budget just reached is kept."""
    return round(100 * share, 9) > budget_percent


def _unsure(rows: int, least: float, budget_percent: float) -> str:
    """What is to be said when the true share may be as low as *least*, which would be in budget."""
    if over(least, budget_percent):
        return ""
    return f" ({rows} rows are too few to be sure: it may be {100 * max(0.0, least):.2f})"


def doubts(found: Verdict, options: ExportOptions) -> tuple[str, ...]:
    """Which budgets a candidate that passed may break for all that its exam can say."""
    said = []
    drop, flips = -found.accuracy_change_interval[0], found.flip_interval[1]
    few = f"{found.exam_rows} exam rows are too few to be sure of the"
    if over(flips, options.max_flip_percent):
        budget = f"flip budget of {options.max_flip_percent:g} %"
        said.append(f"{few} {budget}: the true rate may be {100 * flips:.1f} %")
    if over(drop, options.max_accuracy_drop_points):
        budget = f"accuracy budget of {options.max_accuracy_drop_points:g} points"
        said.append(f"{few} {budget}: the true loss may be {100 * drop:.1f}")
    return tuple(said)


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


def paired_interval(lost: int, gained: int, total: int) -> tuple[float, float]:
    """95 % interval of the change of a share, of *total* rows of which *lost* and *gained* changed.

    Agresti and Min's (2005): half a row more in each cell makes it honest for few changes.
    """
    rows, change = total + 2, gained - lost
    half = _Z95 * math.sqrt(lost + gained + 1 - change**2 / rows) / rows
    return max(-1.0, change / rows - half), min(1.0, change / rows + half)


def _change_interval(given: Bools, expected: Bools, truth: Bools) -> tuple[float, float]:
    """Of accuracy, against that of *expected*."""
    right, before = ((sheet == truth).all(axis=1) for sheet in (given, expected))
    return paired_interval(int((before & ~right).sum()), int((right & ~before).sum()), len(truth))


def _differing(left: Bools, right: Bools) -> int:
    return int((left != right).any(axis=1).sum())


def _largest_difference(left: Logits, right: Logits) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.abs(left - right).max())
