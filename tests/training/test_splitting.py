"""The splitter's laws: conservation, disjointness, proportion, determinism."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.splitting import TEST, TRAIN, UNDECIDED, Table, decide

rows = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from([TRAIN, TEST, UNDECIDED])),
    max_size=120,
)
seeds = st.integers(0, 2**32 - 1)


def a_table(items: list[tuple[int, int, int]]) -> Table:
    """Rows of (text, label, given split)."""
    texts, labels, given_ = zip(*items, strict=True) if items else ((), (), ())
    return Table(
        texts=np.asarray(texts, dtype=np.uint64),
        labels=np.asarray(labels, dtype=np.uint64),
        strata=np.asarray(labels, dtype=np.int64),
        given=np.asarray(given_, dtype=np.int64),
    )


@given(rows, st.floats(0, 0.99), seeds, st.booleans(), st.none() | st.integers(1, 50))
def test_every_row_is_in_one_split_or_dropped(
    items: list[tuple[int, int, int]], ratio: float, seed: int, shuffle: bool, limit: int | None
) -> None:
    """Rows are conserved, no text is in both splits, and a given split is never left."""
    table = a_table(items)
    decision = decide(table, ratio=ratio, limit=limit, seed=seed, shuffle=shuffle)
    chosen = [*decision.train.tolist(), *decision.test.tolist()]

    assert len(set(chosen)) == len(chosen)
    assert len(chosen) + sum(decision.dropped.values()) == len(items)
    assert len({items[i][0] for i in chosen}) == len(chosen)
    assert not any(items[i][2] == TEST for i in decision.train)
    assert not any(items[i][2] == TRAIN for i in decision.test)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.floats(0.05, 0.95), seeds)
def test_each_label_is_held_out_in_proportion(labels: list[int], ratio: float, seed: int) -> None:
    """Of every label about the ratio is held out, and two rows or more are on both sides."""
    table = a_table([(i, label, UNDECIDED) for i, label in enumerate(labels)])
    decision = decide(table, ratio=ratio, limit=None, seed=seed, shuffle=True)
    held_out = Counter(labels[i] for i in decision.test)

    for label, count in Counter(labels).items():
        assert abs(held_out[label] - ratio * count) <= 1
        if count > 1:
            assert 0 < held_out[label] < count


@given(rows, seeds)
def test_equal_seeds_split_equally(items: list[tuple[int, int, int]], seed: int) -> None:
    """The decision is a function of rows and seed."""
    first, again = (
        decide(a_table(items), ratio=0.2, limit=None, seed=seed, shuffle=True) for _ in range(2)
    )

    assert first.train.tolist() == again.train.tolist()
    assert first.test.tolist() == again.test.tolist()
