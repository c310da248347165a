"""The rows a checkpoint was trained on, found by its lineage: to calibrate and to tune on.

Never the exam: what is chosen on the rows that judge it is judged too kindly.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.checkpoint import Checkpoint
from export.exam import ExamRow
from registry import store
from registry.errors import RegistryError

_DATASET = "dataset"  # its key in a lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """The rows, in random order; missing: why there are none, empty when there are."""

    rows: Sequence[ExamRow]
    missing: str = ""

    def sample(self, count: int) -> Sequence[ExamRow]:
        """*count* of them, or all."""
        return self.rows[:count]


NO_ROWS = TrainingRows(rows=(), missing="none were given")


def read_training_rows(
    lineage: Mapping[str, str], checkpoint: Checkpoint, *, limit: int
) -> TrainingRows:
    """At most *limit* rows of the train split that *lineage* names; none, and why, if it is gone."""
    if _DATASET not in lineage:
        return TrainingRows(rows=(), missing="the checkpoint's lineage names no dataset")
    try:
        folder = store.fetch(store.resolve(lineage[_DATASET], kind="dataset"))
        rows = _read(folder, checkpoint, limit)
    except (RegistryError, OSError, ValueError, KeyError) as error:
        return TrainingRows(rows=(), missing=f"{lineage[_DATASET]} cannot be read ({error})")
    return TrainingRows(rows=rows)


def _read(folder: Path, checkpoint: Checkpoint, limit: int) -> list[ExamRow]:
    import datasets

    labels = json.loads((folder / "dataset.json").read_bytes())["labels"]
    places = {label: place for place, label in enumerate(checkpoint.labels)}
    split = datasets.load_from_disk(str(folder / "train"))
    order = list(range(len(split)))
    random.Random(0).shuffle(order)  # noqa: S311 - nothing is hidden
    return [_row(row, labels, places) for row in split.select(order[:limit])]


def _row(row: Mapping[str, Any], labels: Sequence[str], places: Mapping[str, int]) -> ExamRow:
    given = row["labels"] if "labels" in row else [row["label"]]
    return ExamRow(
        text=row["text"],
        text_pair=row.get("text_pair"),
        truth=tuple(sorted(places[labels[label]] for label in given)),
    )
