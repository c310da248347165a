"""The numbers agree with scikit-learn, and with their definitions where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from training.metrics import (
    RELIABILITY_BINS,
    expected_calibration_error,
    multi_label_scores,
    reliability_bins,
    row_losses,
    sigmoid,
    single_label_scores,
    softmax,
)

Array = np.ndarray[Any, Any]
quickly = settings(deadline=None, max_examples=80)
SHAPES = st.tuples(st.integers(1, 40), st.integers(2, 6))
LOGITS = SHAPES.flatmap(
    lambda shape: arrays(
        np.float32, shape, elements=st.integers(-240, 240).map(lambda eighths: eighths / 8)
    )
)


def names(count: int) -> list[str]:
    """Label names."""
    return [f"label {number}" for number in range(count)]


@st.composite
def single(draw: st.DrawFn) -> tuple[Array, Array]:
    """Logits (N, L) and truths (N,)."""
    logits = draw(LOGITS)
    return logits, draw(arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))


@st.composite
def multi(draw: st.DrawFn) -> tuple[Array, Array]:
    """Logits and truths, both (N, L)."""
    logits = draw(LOGITS)
    return logits, draw(arrays(np.float32, logits.shape, elements=st.sampled_from([0.0, 1.0])))


@quickly
@given(single())
def test_single_label_agrees_with_sklearn(case: tuple[Array, Array]) -> None:
    """Accuracy, F1, per-label numbers, confusion and loss, for any logits."""
    logits, truths = case
    labels = list(range(logits.shape[1]))
    scores = single_label_scores(logits, truths, names(len(labels)))
    answers = logits.astype(np.float64).argmax(axis=1)
    columns = sk.precision_recall_fscore_support(truths, answers, labels=labels, zero_division=0)
    found = [(row.precision, row.recall, row.f1, row.support) for row in scores.per_label]

    assert scores.accuracy == pytest.approx(sk.accuracy_score(truths, answers))
    assert scores.macro_f1 == pytest.approx(
        sk.f1_score(truths, answers, labels=labels, average="macro", zero_division=0)
    )
    assert scores.micro_f1 == pytest.approx(scores.accuracy)
    np.testing.assert_allclose(np.array(found).T, np.array(columns))
    np.testing.assert_array_equal(
        scores.confusion, sk.confusion_matrix(truths, answers, labels=labels)
    )
    expected = -np.log(np.maximum(softmax(logits)[np.arange(len(truths)), truths], 1e-300))
    np.testing.assert_allclose(row_losses(logits, truths), expected, atol=1e-9)


@quickly
@given(multi())
def test_multi_label_agrees_with_sklearn(case: tuple[Array, Array]) -> None:
    """Exact match, micro- and macro-F1, per-label numbers and loss, for any logits."""
    logits, truths = case
    scores = multi_label_scores(logits, truths, names(logits.shape[1]))
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    given_, answers = truths.astype(int), (chances >= 0.5).astype(int)
    columns = sk.precision_recall_fscore_support(given_, answers, zero_division=0)
    found = [(row.precision, row.recall, row.f1, row.support) for row in scores.per_label]

    assert scores.summary()["exact_match"] == pytest.approx((given_ == answers).all(axis=1).mean())
    for average, value in (("micro", scores.micro_f1), ("macro", scores.macro_f1)):
        assert value == pytest.approx(
            sk.f1_score(given_, answers, average=average, zero_division=0)
        )
    np.testing.assert_allclose(np.array(found).T, np.array(columns))
    np.testing.assert_allclose(sigmoid(logits), chances, rtol=1e-9, atol=1e-12)
    terms = np.where(truths == 1, chances, 1 - chances)
    np.testing.assert_allclose(
        row_losses(logits, truths), -np.log(np.maximum(terms, 1e-300)).mean(axis=1), rtol=1e-3
    )


def test_one_label_is_no_special_case() -> None:
    """Multi-label with a single label counts its presence, not its absence."""
    scores = multi_label_scores(
        np.array([[2.0], [-2.0], [3.0]]), np.array([[1.0], [0.0], [0.0]]), ["only"]
    )

    assert (scores.per_label[0].precision, scores.per_label[0].recall) == (0.5, 1)
    assert scores.per_label[0].support == 1


@quickly
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60).map(
        lambda pairs: tuple(map(np.array, zip(*pairs, strict=True)))
    )
)
def test_calibration_error_is_its_definition(case: tuple[Array, Array]) -> None:
    """Every answer is in one bin; the error is the weighted gap, between 0 and 1."""
    confidence, right = case
    bins = reliability_bins(confidence, right)
    error = 0.0
    for number in range(RELIABILITY_BINS):
        low, high = np.linspace(0, 1, RELIABILITY_BINS + 1)[number : number + 2]
        inside = (confidence > low) & (confidence <= high)
        inside |= (confidence == 0) & (number == 0)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())

    assert sum(entry.count for entry in bins) == len(right)
    assert expected_calibration_error(bins) == pytest.approx(error)
    assert 0 <= error <= 1


def test_sure_and_right_is_perfectly_calibrated() -> None:
    """And sure and wrong is the worst there is."""
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])

    assert single_label_scores(logits, np.array([0, 1]), names(2)).ece == 0
    assert single_label_scores(logits, np.array([1, 0]), names(2)).ece == 1
    assert np.isfinite(single_label_scores(logits, np.array([1, 0]), names(2)).loss)
