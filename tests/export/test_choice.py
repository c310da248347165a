"""Choosing and tuning, as pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.choice import Contender, pareto_front, ranked
from export.speed import Timing, speed_of, timed_lengths
from export.tuning import fit_temperature, fit_thresholds
from serving.engine import probabilities

numbers = st.floats(min_value=1, max_value=1000)
contenders = st.lists(
    st.builds(
        Contender,
        name=st.text(min_size=1, max_size=4),
        texts_per_s=numbers,
        low=numbers,
        high=numbers,
        latency_ms=numbers,
        model_bytes=st.integers(1, 1000),
        bit_equal=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: one.name,
)


@given(contenders)
def test_everyone_is_ranked_once(entered: list[Contender]) -> None:
    """No candidate is lost or named twice, by any objective."""
    for objective in ("throughput", "latency", "size"):
        order = ranked(entered, objective)

        assert sorted(order) == sorted(one.name for one in entered)


@given(contenders)
def test_the_first_is_within_a_tie_of_the_best(entered: list[Contender]) -> None:
    """What wins is at most 25 % slower than the fastest, whatever else speaks for it."""
    if not entered:
        return
    rates = {one.name: one.texts_per_s for one in entered}

    first = ranked(entered, "throughput")[0]

    assert rates[first] * 1.25 >= max(rates.values()) * (1 - 1e-9)


def entrant(
    name: str, rate: float, *, noise: float = 0.0, model_bytes: int = 1, bit_equal: bool = True
) -> Contender:
    """Its rounds lie within *noise* texts/s of *rate*."""
    return Contender(
        name=name,
        texts_per_s=rate,
        low=rate - noise,
        high=rate + noise,
        latency_ms=1 / rate,
        model_bytes=model_bytes,
        bit_equal=bit_equal,
    )


def test_rounds_that_overlap_prove_nothing() -> None:
    """A lead of a tenth counts when the rounds are apart, and does not when they are not."""
    large = entrant("large", 110, noise=2, model_bytes=60)

    for objective in ("throughput", "latency"):
        assert ranked([large, entrant("small", 100, noise=2)], objective)[0] == "large"
        assert ranked([large, entrant("small", 100, noise=9)], objective)[0] == "small"
        assert ranked([large, entrant("small", 80, noise=40)], objective)[0] == "large"


def test_a_tie_goes_to_equal_bits_then_to_size() -> None:
    """Two per cent of speed are noise; answers that depend on company, or 36 MB more, are not."""
    entered = [
        entrant("fast", 102, model_bytes=20, bit_equal=False),
        entrant("large", 101, model_bytes=60),
        entrant("small", 100, model_bytes=24),
        entrant("slow", 50, model_bytes=1),
    ]

    assert ranked(entered, "throughput") == ["small", "large", "fast", "slow"]
    assert ranked(entered, "size")[0] == "slow"


@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8
    )
)
def test_the_front_beats_all_and_is_not_beaten(points: dict[str, tuple[int, int]]) -> None:
    """Every point is as good as or worse than one on the front; none on the front is beaten."""
    front = [points[name] for name in pareto_front(points)]

    for point in points.values():
        assert any(all(a <= b for a, b in zip(best, point, strict=True)) for best in front)
    for one in front:
        for other in front:
            assert other == one or any(a > b for a, b in zip(other, one, strict=True))


def timing(factor: float) -> Timing:
    """A round on a machine that is so many times slower; a batch costs less a text."""
    rows = [[factor * batch**0.9 * length for length in (8, 16)] for batch in (1, 4)]
    return Timing(
        batches=(1, 4),
        lengths=(8, 16),
        ms=tuple(tuple(row) for row in rows),
        load_s=factor,
        peak_memory_bytes=100,
    )


def test_speed_is_the_median_round_with_its_spread() -> None:
    """One slow round moves neither the rate nor the latency; it shows in the spread."""
    lengths = [8, 16, 16]

    quiet = speed_of([timing(1)], lengths, lanes=2, batched=False)
    noisy = speed_of([timing(1), timing(1), timing(5)], lengths, lanes=2, batched=False)

    assert quiet.texts_per_s == pytest.approx(2 * 1000 / np.mean(lengths))
    assert noisy.texts_per_s == pytest.approx(quiet.texts_per_s)
    assert noisy.texts_per_s_low == pytest.approx(quiet.texts_per_s / 5)
    assert noisy.latency_ms == pytest.approx(np.mean(lengths))
    assert {cell for row in noisy.spread for cell in row} == {5.0}


def test_company_counts_only_where_it_is_harmless() -> None:
    """A candidate that must run texts alone is not credited with what batches would save."""
    alone = speed_of([timing(1)], [8, 16], lanes=1, batched=False)
    together = speed_of([timing(1)], [8, 16], lanes=1, batched=True)

    assert together.texts_per_s == pytest.approx(alone.texts_per_s * 4**0.1)


def test_lengths_to_time_are_lengths_of_the_exam() -> None:
    """Short, usual and long: ascending, none twice."""
    assert timed_lengths([7] * 9) == (7,)
    assert timed_lengths(list(range(1, 102))) == (11, 51, 91)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_found_is_the_one_planted(temperature: float) -> None:
    """Rows drawn by their own probabilities are calibrated; scaled logits are scaled back."""
    drawn = np.random.default_rng(0)
    logits = drawn.normal(0, 2, (20000, 4)).astype(np.float32)
    chances = probabilities(logits, "single_label").astype(np.float64)
    picks = (chances.cumsum(axis=1) > drawn.random((len(chances), 1))).argmax(axis=1)
    truth = np.eye(4, dtype=bool)[picks]

    found = fit_temperature(logits * np.float32(temperature), truth, "single_label")

    assert found == pytest.approx(temperature, rel=0.05)


def test_thresholds_are_the_best_of_all() -> None:
    """No other threshold gives a label a better F1 on the rows it was fitted on."""
    from sklearn.metrics import f1_score

    drawn = np.random.default_rng(1)
    truth = drawn.random((300, 3)) < np.array([0.3, 0.05, 0.0])
    logits = (drawn.normal(0, 1, truth.shape) + 1.5 * truth).astype(np.float32)
    chances = probabilities(logits, "multi_label")

    found = fit_thresholds(logits, truth)

    for label in (0, 1):
        scores = [
            f1_score(truth[:, label], chances[:, label] >= threshold)
            for threshold in np.linspace(0, 1, 400)
        ]
        mine = f1_score(truth[:, label], chances[:, label] >= found[label])
        assert mine >= max(scores) - 1e-9
    assert found[2] == 0.5
