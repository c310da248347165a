"""Which rows go where: the validation part, the batches of an epoch, the batches of an exam.

Pure functions of lengths, labels and seeds, so that a run can be repeated and resumed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

VALIDATION_SHARE = 0.1
MAX_VALIDATION_ROWS = 2000  # enough to choose a checkpoint; more would only cost time
_POOL_BATCHES = 50


def split_validation(strata: Sequence[int], *, seed: int) -> tuple[Indices, Indices]:
    """Row numbers (training, validation), both ascending, together all of them.

    strata: one key a row. About a tenth of each stratum is for validation, at most
    `MAX_VALIDATION_ROWS` in all; a stratum's only row stays in training. May be empty for few rows.
    """
    keys = np.asarray(strata, dtype=np.int64)
    wanted = min(round(len(keys) * VALIDATION_SHARE), MAX_VALIDATION_ROWS)
    if wanted == 0:
        return np.arange(len(keys)), np.arange(0)
    shuffled = np.random.default_rng(seed).permutation(len(keys))
    by_stratum = shuffled[np.argsort(keys[shuffled], kind="stable")]
    # Evenly spaced over rows sorted by stratum: each gives its share, without rounding one by one.
    positions = ((np.arange(wanted) + 0.5) * len(keys) / wanted).astype(np.int64)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    chosen = by_stratum[positions]
    validation = np.sort(chosen[counts[inverse[chosen]] > 1])
    return np.setdiff1d(np.arange(len(keys)), validation), validation


def length_grouped(
    lengths: npt.NDArray[np.int64], *, batch_size: int, seed: int, epoch: int
) -> Indices:
    """An order of all rows in which each run of *batch_size* has similar lengths.

    Rows are shuffled, sorted by length within pools of 50 batches, and the batches shuffled again:
    nearly nothing is padded, and length tells nothing of the step. The short batch comes last.
    """
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(lengths))
    pool = batch_size * _POOL_BATCHES
    pools = [shuffled[start : start + pool] for start in range(0, len(shuffled), pool)]
    ordered = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in pools])
    full = len(ordered) // batch_size * batch_size
    batches = ordered[:full].reshape(-1, batch_size)
    return np.concatenate([generator.permutation(batches).reshape(-1), ordered[full:]])


def share_of_batch(
    batch: Indices, *, rank: int, count: int
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """Rows (n,) of *batch* for worker *rank* of *count*, and the weight (n,) of each in its loss.

    Every count-th row, so that lengths are spread evenly. The mean over workers of their weighted
    sums is the mean over the batch, however few rows a worker has; one with none takes the first
    row without weight, since all must take part in a step.
    """
    rows = batch[rank::count]
    if not len(rows):
        return batch[:1], np.zeros(1, dtype=np.float32)
    return rows, np.full(len(rows), count / len(batch), dtype=np.float32)


def by_tokens(lengths: npt.NDArray[np.int64], *, max_tokens: int) -> list[Indices]:
    """All rows, longest first, in batches whose padded size is at most *max_tokens*.

    Longest first shows at once whether the memory suffices. A row longer than that is alone.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // int(lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches
