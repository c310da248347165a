"""The exam: the held-out rows that every graph must answer. It reads `exam.jsonl`, nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.checkpoint import Checkpoint
from export.errors import ExamError
from serving.package import Task

EXAM = "exam.jsonl"
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamRow:
    """One held-out row. truth: label numbers, ascending; exactly one for single-label."""

    text: str
    text_pair: str | None
    truth: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """The rows to be judged by, N of *held_out*; L = labels."""

    task: Task
    rows: Sequence[ExamRow]
    held_out: int
    labels: int

    def truth(self) -> Bools:
        """(N, L): which labels are true."""
        matrix = np.zeros((len(self.rows), self.labels), dtype=bool)
        for index, row in enumerate(self.rows):
            matrix[index, list(row.truth)] = True
        return matrix


def read_exam(checkpoint: Checkpoint, *, min_rows: int, limit: int) -> Exam:
    """Held-out rows, at most *limit* of them, taken at even distances, in random order.

    Not the first ones: a dataset that was not shuffled may be sorted by label. In random order (the
    same each time), any first part of the exam is a fair sample of it. Raises `ExamError`
    for a missing or unreadable exam, and when it has fewer than *min_rows* rows.
    """
    path = checkpoint.folder / EXAM
    if not path.is_file():
        raise ExamError(f"{path} is missing; without held-out rows nothing can be proved.")
    try:
        held_out = sum(1 for _ in _lines(path))
    except UnicodeDecodeError as error:
        raise ExamError(f"{path} is not UTF-8 ({error}); train it again.") from error
    if held_out < min_rows:
        raise ExamError(
            f"{path} has {held_out} rows, fewer than the {min_rows} needed to judge by; hold out more"
            " when transforming, or lower --min-exam-rows."
        )
    taken = min(limit, held_out)
    chosen = {index * held_out // taken for index in range(taken)}
    places = {label: index for index, label in enumerate(checkpoint.labels)}
    rows = [
        _row(f"{path}, line {number}", line, checkpoint, places)
        for index, (number, line) in enumerate(_lines(path))
        if index in chosen
    ]
    random.Random(0).shuffle(rows)  # noqa: S311 - nothing is hidden
    return Exam(task=checkpoint.task, rows=rows, held_out=held_out, labels=len(checkpoint.labels))


def _row(place: str, line: str, checkpoint: Checkpoint, places: Mapping[str, int]) -> ExamRow:
    try:
        document: Any = json.loads(line)
        text, pair, labels = document["text"], document.get("text_pair"), list(document["labels"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExamError(f"{place} is no exam row ({error!r}); train it again.") from error
    if not isinstance(text, str) or (checkpoint.text_pair and not isinstance(pair, str)):
        raise ExamError(f"{place}: text or text_pair is not a string; train it again.")
    for label in labels:
        if label not in places:
            raise ExamError(f"{place}: the model has no label {label!r}; train it again.")
    if checkpoint.task == "single_label" and len(labels) != 1:
        raise ExamError(f"{place} has {len(labels)} labels, but the model gives exactly one.")
    truth = tuple(sorted(places[label] for label in labels))
    return ExamRow(text=text, text_pair=pair if checkpoint.text_pair else None, truth=truth)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not empty; only a newline ends one, U+2028 does not."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line
