"""The gates as a pure function: every fault of an answer sheet has its reason."""

from __future__ import annotations

import math
from math import lgamma

import numpy as np
import numpy.typing as npt
import pytest

from export import ExportOptions
from export.answers import Answers
from export.exam import Exam, ExamRow
from export.gates import (
    Verdict,
    calibration_error,
    decisions,
    doubts,
    judge_answers,
    macro_f1,
    paired_interval,
)
from serving.agreement import wilson
from serving.package import Task

Logits = npt.NDArray[np.float32]
ROWS, LABELS = 1000, 4


def sheet(logits: Logits, mixed: Logits | None = None, *, deterministic: bool = True) -> Answers:
    """Answers with those logits."""
    return Answers(
        alone=logits,
        mixed=logits if mixed is None else mixed,
        deterministic=deterministic,
    )


def good_logits(rows: int = ROWS) -> Logits:
    """Row i is sure of label i % 4, and of no other (the others are below 0)."""
    logits = np.full((rows, LABELS), -4.0, dtype=np.float32)
    logits[np.arange(rows), np.arange(rows) % LABELS] = 4.0
    return logits


def verdict(
    answers: Answers,
    task: Task = "single_label",
    *,
    max_flip_percent: float = 2.0,
    max_accuracy_drop_points: float = 1.0,
) -> Verdict:
    """On an exam whose truth is `good_logits`."""
    rows = [
        ExamRow(text="", text_pair=None, truth=(index % LABELS,))
        for index in range(len(answers.alone))
    ]
    exam = Exam(task=task, rows=rows, held_out=len(rows), labels=LABELS)
    return judge_answers(
        "tried",
        answers,
        fp32=sheet(good_logits(len(rows))),
        exam=exam,
        options=ExportOptions(
            max_flip_percent=max_flip_percent, max_accuracy_drop_points=max_accuracy_drop_points
        ),
        model_bytes=1,
    )


def flipped(rows: int) -> Logits:
    """`good_logits`, of which the first *rows* name the next label instead."""
    logits = good_logits()
    logits[:rows] = np.roll(logits[:rows], 1, axis=1)
    return logits


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_equal_answers_pass(task: Task) -> None:
    """Nothing flips, nothing changes, company does not matter."""
    found = verdict(sheet(good_logits()), task)

    assert found.passed
    assert (found.accuracy, found.macro_f1, found.label_flip_rate) == (1.0, 1.0, 0.0)
    assert (found.max_probability_change, found.mean_probability_change) == (0.0, 0.0)
    assert found.batch_invariant
    assert found.batch_bit_equal


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (sheet(flipped(30)), "3.00 % of answers differ"),
        (sheet(flipped(30)), "accuracy falls by 3.00 points"),
        (sheet(np.zeros((ROWS, LABELS), dtype=np.float32)), "accuracy falls by 75.00"),
        (
            sheet(good_logits() + np.array([0, 0, 0, 9], dtype=np.float32)),
            "75.00 % of answers differ",
        ),
        (sheet(good_logits() * np.float32(np.nan)), "not numbers"),
        (sheet(good_logits(), deterministic=False), "different bits"),
    ],
    ids=["flips", "accuracy", "zeroed", "bias", "nan", "random"],
)
def test_fault_has_its_reason(answers: Answers, reason: str) -> None:
    """A faulty candidate fails, and says why; its entry is still JSON."""
    found = verdict(answers)

    assert not found.passed
    assert reason in "; ".join(found.reasons)
    assert not any(
        np.isnan(value) for value in found.document().values() if isinstance(value, float)
    )


def test_budgets_decide() -> None:
    """The same answers pass or fail as the budgets say; a budget just reached is kept."""
    answers = sheet(flipped(30))

    assert verdict(answers, max_flip_percent=3.0, max_accuracy_drop_points=3.0).passed
    assert not verdict(answers, max_flip_percent=2.9, max_accuracy_drop_points=3.0).passed
    assert not verdict(answers, max_flip_percent=3.0, max_accuracy_drop_points=2.9).passed


def test_flips_count_although_accuracy_stays() -> None:
    """A candidate that is as often right, but elsewhere, does not give the same answers."""
    logits = good_logits()
    logits[:100] = -logits[:100]  # as wrong as can be, and fp32 is not the truth here either
    rows = [ExamRow(text="", text_pair=None, truth=((i // 2) % LABELS,)) for i in range(ROWS)]
    exam = Exam(task="single_label", rows=rows, held_out=ROWS, labels=LABELS)
    fp32 = sheet(np.roll(logits, 1, axis=0))

    found = judge_answers(
        "tried", sheet(logits), fp32=fp32, exam=exam, options=ExportOptions(), model_bytes=1
    )

    assert len(found.reasons) == 1
    assert "differ from fp32" in found.reasons[0]


def test_multi_label_row_flips_with_any_label() -> None:
    """One label more than fp32 gives makes another answer."""
    logits = good_logits()
    logits[:50, 3] = 1.0  # 12 of these have label 3 anyway

    found = verdict(sheet(logits), "multi_label", max_flip_percent=100, max_accuracy_drop_points=9)

    assert found.passed
    assert found.label_flip_rate == pytest.approx(0.038)
    assert found.accuracy_change == pytest.approx(-0.038)
    assert found.macro_f1_change < 0
    assert found.accuracy == pytest.approx(1 - 0.038)


def test_company_is_no_reason_but_is_said() -> None:
    """What flips in a batch may be packaged, to be run alone."""
    found = verdict(sheet(good_logits(), flipped(20)))

    assert found.passed
    assert not found.batch_invariant
    assert found.batch_flip_rate == pytest.approx(0.02)


def test_rounding_is_the_same_answer() -> None:
    """fp32 in another shape rounds differently; that alone does not separate texts."""
    found = verdict(sheet(good_logits(), good_logits() + np.float32(5e-5)))

    assert found.batch_invariant
    assert not found.batch_bit_equal


@pytest.mark.parametrize(("rows", "proven"), [(60, False), (1000, True)])
def test_small_exam_proves_no_batch_budget(rows: int, *, proven: bool) -> None:
    """Logits that move in company are trusted only when enough rows show that no answer does."""
    logits = good_logits(rows)

    assert verdict(sheet(logits, logits + np.float32(0.1))).batch_invariant is proven


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 100, 0.0, 0.0370), (5, 100, 0.0215, 0.1118), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_is_the_known_interval(count: int, total: int, low: float, high: float) -> None:
    """Values of the published formula."""
    assert wilson(count, total) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("total", [50, 200])
@pytest.mark.parametrize("chances", [(0.01, 0.01), (0.03, 0.01), (0.2, 0.1)])
def test_interval_of_a_change_holds_it(total: int, chances: tuple[float, float]) -> None:
    """Of all exams that could be drawn, about 95 % give an interval around the true change."""
    lost_chance, gained_chance = chances
    held = mass = 0.0
    for lost in range(total + 1):
        for gained in range(min(total - lost, 80) + 1):
            rest = total - lost - gained
            log = lgamma(total + 1) - lgamma(lost + 1) - lgamma(gained + 1) - lgamma(rest + 1)
            log += lost * math.log(lost_chance) + gained * math.log(gained_chance)
            probability = math.exp(log + rest * math.log(1 - lost_chance - gained_chance))
            low, high = paired_interval(lost, gained, total)
            held += probability * (low <= gained_chance - lost_chance <= high)
            mass += probability

    assert mass == pytest.approx(1)
    assert held > 0.93


def test_interval_of_a_change_has_two_sides() -> None:
    """What is lost and gained in equal number cannot be told from nothing; signs are symmetric."""
    low, high = paired_interval(7, 3, 400)

    assert paired_interval(3, 7, 400) == pytest.approx((-high, -low))
    assert low < -4 / 400 < high
    assert sum(paired_interval(5, 5, 400)) == pytest.approx(0)


@pytest.mark.parametrize(("rows", "said"), [(ROWS, False), (50, True)])
def test_a_refusal_by_few_rows_says_so(rows: int, *, said: bool) -> None:
    """Two flips in fifty rows prove no more than 2 %; forty in a thousand do."""
    logits = good_logits(rows)
    flips = rows * 4 // 100
    logits[:flips] = np.roll(logits[:flips], 1, axis=1)

    found = verdict(sheet(logits))

    assert len(found.reasons) == 2
    assert all((f"{rows} rows are too few to be sure" in why) is said for why in found.reasons)


@pytest.mark.parametrize(("rows", "doubtful"), [(100, 2), (ROWS, 0)])
def test_a_pass_by_few_rows_says_so(rows: int, doubtful: int) -> None:
    """Faultless on a hundred rows leaves room for both budgets to be broken; on a thousand, none."""
    found = verdict(sheet(good_logits(rows)))

    assert found.passed
    assert len(doubts(found, ExportOptions())) == doubtful


def test_macro_f1_is_scikit_learns() -> None:
    """Also for labels that are never given or never true."""
    from sklearn.metrics import f1_score

    drawn = np.random.default_rng(0)
    truth, given = drawn.random((2, 200, 6)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.0])

    assert macro_f1(given, truth) == pytest.approx(
        f1_score(truth, given, average="macro", zero_division=0)
    )


def test_decisions_are_those_of_serving() -> None:
    """One label a row, or all whose sigmoid reaches a half, to the last bit."""
    logits = np.array([[0.0, -1e-9, 2.0], [-1.0, -2.0, -3.0]], dtype=np.float32)

    assert decisions(logits, "single_label").tolist() == [[0, 0, 1], [1, 0, 0]]
    assert decisions(logits, "multi_label").tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_part_of_the_exam_is_judged_alone() -> None:
    """Answers to the first rows are held to those rows; company may have been tried on fewer."""
    part = Answers(alone=flipped(30)[:60], mixed=flipped(30)[:40], deterministic=True)
    rows = [ExamRow(text="", text_pair=None, truth=(index % LABELS,)) for index in range(ROWS)]
    exam = Exam(task="single_label", rows=rows, held_out=ROWS, labels=LABELS)

    found = judge_answers(
        "tried",
        part,
        fp32=sheet(good_logits()),
        exam=exam,
        options=ExportOptions(),
        model_bytes=1,
    )

    assert (found.exam_rows, found.label_flip_rate, found.accuracy) == (60, 0.5, 0.5)
    assert found.batch_flip_interval == wilson(0, 40)


@pytest.mark.parametrize("sure", [0.6, 0.9])
def test_calibration_error_is_confidence_minus_truth(sure: float) -> None:
    """A model right in three of four rows, and as sure of each, is off by the difference."""
    logits = np.tile(np.log(np.array([sure, 1 - sure], dtype=np.float32)), (400, 1))
    truth = np.zeros((400, 2), dtype=bool)
    truth[np.arange(400), (np.arange(400) % 4 == 0).astype(int)] = True

    assert calibration_error(logits, truth, "single_label") == pytest.approx(abs(sure - 0.75))
