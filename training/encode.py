"""Dataset rows as token ids and targets, held compactly in memory.

It knows tokenizers and the dataset's columns, not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_TEXTS_A_CALL = 1000  # the tokenizer works on them in parallel, without the GIL


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """N tokenised rows, end to end in flat arrays: a list of lists would take ten times the memory.

    ids (tokens,) int32 · offsets (N + 1,) int64, row i is ids[offsets[i]:offsets[i + 1]] ·
    type_ids (tokens,) int8, or None when the model takes none ·
    targets (N,) int64 for single-label, (N, L) float32 of 0 and 1 for multi-label.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    type_ids: npt.NDArray[np.int8] | None
    targets: npt.NDArray[Any]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row (N,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row as the collator takes it: lists of ints, and its target under `labels`."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        ids = self.ids[part].tolist()
        found = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if self.type_ids is not None:
            found["token_type_ids"] = self.type_ids[part].tolist()
        return {**found, "labels": self.targets[row].tolist()}

    def select(self, rows: npt.NDArray[np.int64]) -> EncodedRows:
        """These rows, in this order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return EncodedRows(
            ids=self.ids[where],
            offsets=offsets,
            type_ids=None if self.type_ids is None else self.type_ids[where],
            targets=self.targets[rows],
        )


def encode(split: Any, tokenizer: Any, *, max_length: int, labels: int) -> EncodedRows:
    """Tokenise a split as `training.dataset.load_split` gives it, cutting rows at *max_length*.

    labels: how many there are in all. Not `Dataset.map`: its cache would be written into the
    sealed dataset folder.
    """
    ids: list[npt.NDArray[np.int32]] = []
    type_ids: list[npt.NDArray[np.int8]] = []
    lengths: list[int] = []
    pairs = "text_pair" in split.column_names
    for rows in split.iter(batch_size=_TEXTS_A_CALL):
        batch = tokenizer(
            rows["text"],
            rows["text_pair"] if pairs else None,
            truncation="longest_first",
            max_length=max_length,
        )
        lengths.extend(len(row) for row in batch["input_ids"])
        ids.extend(np.asarray(row, dtype=np.int32) for row in batch["input_ids"])
        if "token_type_ids" in batch:
            type_ids.extend(np.asarray(row, dtype=np.int8) for row in batch["token_type_ids"])
    return EncodedRows(
        ids=np.concatenate([*ids, np.empty(0, dtype=np.int32)]),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        type_ids=np.concatenate(type_ids) if type_ids else None,
        targets=_targets(split, labels),
    )


def strata(targets: npt.NDArray[Any]) -> list[int]:
    """A key for each row to split by: its label, or of several labels the rarest; -1 for none."""
    if targets.ndim == 1:
        return [int(label) for label in targets]
    rarity = np.argsort(np.argsort(targets.sum(axis=0), kind="stable"), kind="stable")
    ranked = np.where(targets > 0, rarity, targets.shape[1])
    return [int(row.argmin()) if row.min() < len(row) else -1 for row in ranked]


def _targets(split: Any, labels: int) -> npt.NDArray[Any]:
    if "label" in split.column_names:
        return np.asarray(split["label"], dtype=np.int64)
    return multi_hot(split["labels"], labels)


def multi_hot(rows: Sequence[Sequence[int]], labels: int) -> npt.NDArray[np.float32]:
    """Lists of label numbers as an (N, L) matrix of 0 and 1."""
    matrix = np.zeros((len(rows), labels), dtype=np.float32)
    for row, present in enumerate(rows):
        matrix[row, list(present)] = 1
    return matrix
