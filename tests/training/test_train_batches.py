"""Laws of the orders and parts that training uses, on any lengths and labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batches import MAX_VALIDATION_ROWS, by_tokens, length_grouped, split_validation
from training.encode import multi_hot, strata
from training.trainer import evaluation_interval

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=400).map(np.array)
quickly = settings(deadline=None, max_examples=60)


@quickly
@given(LENGTHS, st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_takes_every_row_once(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    """Every epoch is a permutation of the rows, the same for the same seed and epoch."""
    order = length_grouped(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
    again = length_grouped(lengths, batch_size=batch_size, seed=seed, epoch=epoch)

    assert sorted(order) == list(range(len(lengths)))
    assert order.tolist() == again.tolist()


def test_batches_hold_similar_lengths_in_a_random_order() -> None:
    """Padding is nearly nothing, epochs differ, and length does not tell the step."""
    lengths = np.random.default_rng(0).integers(5, 250, size=3200)
    order = length_grouped(lengths, batch_size=32, seed=0, epoch=0)
    other = length_grouped(lengths, batch_size=32, seed=0, epoch=1)
    longest = lengths[order].reshape(-1, 32).max(axis=1)

    assert longest.sum() * 32 < 1.05 * lengths.sum()
    assert order.tolist() != other.tolist()
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


@quickly
@given(LENGTHS, st.integers(1, 2000))
def test_exam_batches_stay_in_their_budget(lengths: np.ndarray, max_tokens: int) -> None:
    """Every row once, longest first, and no batch pays more padded tokens than allowed."""
    batches = by_tokens(lengths, max_tokens=max_tokens)
    order = np.concatenate(batches)

    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= max_tokens for rows in batches)


@quickly
@given(st.lists(st.integers(0, 6), max_size=500), st.integers(0, 5))
def test_the_validation_part_is_a_fair_tenth(keys: list[int], seed: int) -> None:
    """No row is lost or in both parts, each stratum gives its tenth, and none is emptied."""
    train, validation = split_validation(keys, seed=seed)
    again = split_validation(keys, seed=seed)[1]
    before, taken = Counter(keys), Counter(keys[row] for row in validation)

    assert sorted([*train, *validation]) == list(range(len(keys)))
    assert validation.tolist() == again.tolist()
    assert all(abs(taken[key] - count / 10) < 2 for key, count in before.items())
    assert set(before) == {keys[row] for row in train}


def test_the_validation_part_is_bounded() -> None:
    """Of a large dataset it takes only as many rows as choosing needs."""
    assert len(split_validation([0] * 100_000, seed=0)[1]) == MAX_VALIDATION_ROWS


def test_a_row_of_several_labels_counts_for_its_rarest() -> None:
    """Otherwise common labels would hide which rows a rare one needs."""
    targets = multi_hot([[0], [0, 1], [0, 1, 2], [], [1], [0]], 4)

    assert strata(targets) == [0, 1, 2, -1, 1, 0]
    assert strata(np.array([2, 0, 1])) == [2, 0, 1]


@quickly
@given(st.integers(1, 5000), st.integers(1, 1000), st.integers(1, 64), st.integers(0, 2000))
def test_looking_never_costs_more_than_it_should(
    steps: int, steps_per_epoch: int, batch_size: int, validation_rows: int
) -> None:
    """Five looks a run or more, unless rows looked at would outnumber half the rows trained on."""
    interval = evaluation_interval(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        validation_rows=validation_rows,
    )
    affordable = interval * batch_size >= 2 * validation_rows

    assert 1 <= interval <= steps
    assert affordable or interval == steps
    assert interval <= -(-steps // 5) or (interval - 1) * batch_size < 2 * validation_rows
