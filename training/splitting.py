"""Which row goes where: a pure function of text hashes, labels and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
UNDECIDED, TRAIN, TEST = -1, 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One entry a row, in source order.

    texts (N,) uint64 hash of the text, or of the pair. labels (N,) uint64 hash of all its labels.
    strata (N,) int64, the label to spread evenly. given (N,) int64: TRAIN, TEST or UNDECIDED.
    """

    texts: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.uint64]
    strata: Ints
    given: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDecision:
    """Row numbers of each split in their final order, and why the other rows were dropped."""

    train: Ints
    test: Ints
    dropped: dict[str, int]


def decide(
    table: Table, *, ratio: float, limit: int | None, seed: int, shuffle: bool
) -> SplitDecision:
    """Every row is in exactly one split or dropped for one reason; no text is in both splits.

    Of equal texts the first is kept, a test row before a train row, so that a given test split stays
    what it was. *ratio* of every stratum is held out where no split was given; without *shuffle* it
    is the tail, and order is kept.
    """
    rng = np.random.default_rng(seed)
    kept, dropped = _first_of_each_text(table)
    if limit is not None and limit < len(kept):
        dropped["beyond_limit"] = len(kept) - limit
        kept = np.sort(rng.permutation(kept)[:limit]) if shuffle else kept[:limit]
    given = table.given[kept]
    test = kept[given == TEST]
    open_rows = kept[given == UNDECIDED]
    if shuffle:
        held_out = _stratified(open_rows, table.strata[open_rows], ratio, rng)
    else:
        held_out = open_rows[len(open_rows) - round(ratio * len(open_rows)) :]
    test = np.sort(np.concatenate([test, held_out]))
    train = np.setdiff1d(kept, test)
    if shuffle:
        train, test = rng.permutation(train), rng.permutation(test)
    return SplitDecision(train=train, test=test, dropped=dropped)


def _first_of_each_text(table: Table) -> tuple[Ints, dict[str, int]]:
    """Rows to keep, ascending, and how many were duplicate, conflicting, or train rows also in test."""
    rows = np.arange(len(table.texts))
    priority = np.lexsort((rows, -table.given))  # test first, then source order
    _, first, group = np.unique(table.texts[priority], return_index=True, return_inverse=True)
    keeper = priority[first][group]  # for each row in priority order: who stands for its text
    lost = priority != keeper
    same_label = table.labels[priority] == table.labels[keeper]
    in_test = (table.given[keeper] == TEST) & (table.given[priority] != TEST)
    dropped = {
        "also_in_test": int((lost & in_test).sum()),
        "duplicate": int((lost & ~in_test & same_label).sum()),
        "conflicting": int((lost & ~in_test & ~same_label).sum()),
    }
    return np.sort(priority[first]), dropped


def _stratified(rows: Ints, strata: Ints, ratio: float, rng: np.random.Generator) -> Ints:
    """About *ratio* of every stratum; of two or more rows at least one on each side."""
    order = rng.permutation(len(rows))
    chosen = []
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        count = round(ratio * len(members))
        if ratio > 0 and len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        elif len(members) == 1:
            count = 0
        chosen.append(members[:count])
    return rows[np.concatenate(chosen)] if chosen else rows[:0]
