"""Laws of drift: chance is no drift, a shift is one, and what is forgotten counts no more."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.observing.drift import (
    LEAST,
    WINDOW,
    Drift,
    LastAnswers,
    chance,
    drift,
    joined_neighbours,
    joined_rare,
    psi,
)
from serving.package import CONFIDENCE_EDGES, ExamMix

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=12).filter(any)
BINS = len(CONFIDENCE_EDGES)
# Of confidence: mostly sure, as a trained model is.
SURE = np.array([0.0] * 6 + [0.01] * 8 + [0.02, 0.03, 0.04, 0.05, 0.06, 0.12, 0.2, 0.2, 0.2])
LABELS = np.array([0.4, 0.3, 0.2, 0.0999, 0.0001, 0.0])


def exam_of(rows: int, seed: int) -> ExamMix:
    """*rows* drawn from the two distributions above."""
    rng = np.random.default_rng(seed)
    return ExamMix(
        confidence=tuple(rng.multinomial(rows, SURE).tolist()),
        confidence_sum=0.0,
        labels=tuple(rng.multinomial(rows, LABELS).tolist()),
    )


def fill(window: LastAnswers, answers: int, seed: int, *, unsure: float = 0.0) -> None:
    """Answers of the exam's own kind, but for a share of them that are of another label, and unsure."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(LABELS), answers, p=LABELS)
    bins = rng.choice(BINS, answers, p=SURE)
    other = rng.random(answers) < unsure
    for label, bin_, odd in zip(labels.tolist(), bins.tolist(), other.tolist(), strict=True):
        window.add(3 if odd else label, 8 if odd else bin_)


@given(left=COUNTS, right=COUNTS)
def test_psi_is_a_distance_of_shares(left: list[int], right: list[int]) -> None:
    """Never negative, the same both ways, 0 for equal shares however many rows, and finite."""
    shared = min(len(left), len(right))
    left, right = left[:shared], right[:shared]

    assert 0 <= psi(left, right) < math.inf
    assert psi(left, right) == pytest.approx(psi(right, left), abs=1e-12)
    assert psi(left, [3 * count for count in left]) == pytest.approx(0, abs=1e-12)
    assert psi([0, *left], [0, *right]) == psi(left, right), "a bin that nobody is in is none"


def test_psi_is_what_its_definition_says() -> None:
    """With many rows in every bin, what is added to empty bins is nothing beside them."""
    left, right = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.3, 0.6])
    expected = float(((right - left) * np.log(right / left)).sum())
    million = [[round(1e7 * share) for share in shares] for shares in (left, right)]

    assert psi(*million) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rows", "answers"), [(140, LEAST), (500, WINDOW), (2000, WINDOW)])
def test_chance_is_exceeded_as_often_as_it_says(rows: int, answers: int) -> None:
    """Two draws of one kind: PSI is (B-1)(1/n + 1/m) on average, and beyond `chance` once in 1,000."""
    rng = np.random.default_rng(0)
    bins = 10
    exams = rng.multinomial(rows, [1 / bins] * bins, 2000).tolist()
    windows = rng.multinomial(answers, [1 / bins] * bins, 2000).tolist()
    found = [drift(exam, seen) for exam, seen in zip(exams, windows, strict=True)]

    mean = float(np.mean([one.psi for one in found]))
    assert mean == pytest.approx((bins - 1) * (1 / rows + 1 / answers), rel=0.1)
    # 2 are expected of 2,000; 8 or more would be seen once in a thousand runs, but for the seed.
    assert sum(one.psi > one.chance for one in found) < 8


def test_chance_is_a_quantile_of_chi_square() -> None:
    """As in tables, to 1 %: 27.877 of nine degrees of freedom at 0.999; nothing of a single bin."""
    assert chance(10, 2, 2) == pytest.approx(27.877, rel=0.01)
    assert chance(31, 2, 2) == pytest.approx(59.703, rel=0.01)
    assert chance(1, 100, 100) == 0


@pytest.mark.parametrize("seed", range(5))
def test_answers_of_the_exams_kind_are_stable(seed: int) -> None:
    """Whatever was drawn for the exam, and for the window."""
    window = LastAnswers(exam_of(500, seed))
    fill(window, WINDOW, seed + 100)

    assert {found.state for found in window.drifts().values()} == {"stable"}


@pytest.mark.parametrize("seed", range(5))
def test_another_kind_of_answers_is_a_shift(seed: int) -> None:
    """A third of the answers unsure and of a rarer label: both distributions have shifted."""
    window = LastAnswers(exam_of(500, seed))
    fill(window, WINDOW, seed + 100, unsure=1 / 3)

    assert {found.state for found in window.drifts().values()} == {"shifted"}


def test_sure_answers_that_become_unsure_are_seen() -> None:
    """Though the exam has so few unsure rows that they are no bin of a chi-square."""
    exam = ExamMix(
        confidence=(0,) * 8 + (1, 1) + (0,) * (BINS - 11) + (498,),
        confidence_sum=0.0,
        labels=(500, 0),
    )
    window = LastAnswers(exam)
    for number in range(LEAST):
        window.add(0, 9 if number % 5 == 0 else BINS - 1)

    assert window.drifts()["confidence"].state == "shifted"
    assert window.drifts()["labels"] == Drift(psi=0.0, chance=0.0)


def test_the_window_forgets() -> None:
    """After as many new answers as it holds, it says what a window says that never saw the old ones."""
    exam = exam_of(500, 0)
    old, new = LastAnswers(exam), LastAnswers(exam)
    fill(old, WINDOW + 77, 1, unsure=0.5)
    shifted = old.drifts()
    for window in (old, new):
        fill(window, WINDOW, 2)

    assert len(old) == len(new) == WINDOW
    assert old.drifts() == new.drifts() != shifted


def test_too_few_answers_say_nothing() -> None:
    """One fewer than the least, and there is no drift to read; with the last there is."""
    window = LastAnswers(exam_of(500, 0))
    fill(window, LEAST - 1, 1)
    before = window.drifts()
    fill(window, 1, 2)

    assert before == {}
    assert window.drifts().keys() == {"confidence", "labels"}


@given(COUNTS)
def test_joined_bins_keep_their_order_and_their_rows(counts: list[int]) -> None:
    """Neighbours stay neighbours; what has five rows joins nobody that comes after."""
    places = joined_neighbours(counts)

    assert places[0] == 0
    for (here, there), (count, following) in zip(pairwise(places), pairwise(counts), strict=True):
        assert there - here in {0, 1}
        assert not (max(count, following) >= 5 and there == here)
    assert [place > 0 for place in joined_rare(counts)] == [count >= 5 for count in counts]
