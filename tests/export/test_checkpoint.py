"""Folders that are no checkpoint or hold no exam are refused, each with one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.checkpoint import read_checkpoint
from export.errors import CheckpointError, ExamError, ExportError
from export.exam import read_exam

MakeCheckpoint = Callable[..., Path]
Change = Callable[[Path], object]
EXAM_ROWS = 64


def without(name: str) -> Change:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    """Weights as pickle only."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_value(name: str, key: str, value: Any) -> Change:
    """Change a value of a JSON file."""

    def change(folder: Path) -> None:
        document = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps({**document, key: value}))

    return change


def without_value(name: str, key: str) -> Change:
    """Remove a value of a JSON file."""

    def change(folder: Path) -> None:
        document = json.loads((folder / name).read_bytes())
        del document[key]
        (folder / name).write_text(json.dumps(document))

    return change


def with_exam(*lines: str) -> Change:
    """Another exam."""
    return lambda folder: (folder / "exam.jsonl").write_text("".join(f"{line}\n" for line in lines))


BROKEN = {
    "no tokenizer": (without("tokenizer.json"), CheckpointError, "no tokenizer.json"),
    "no weights": (without("model.safetensors"), CheckpointError, "no model.safetensors"),
    "pickle": (pickled, CheckpointError, "only pickled weights"),
    "no training.json": (without("training.json"), CheckpointError, "is missing, so this is no"),
    "not JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        CheckpointError,
        "cannot be read",
    ),
    "a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        CheckpointError,
        "not a JSON object",
    ),
    "no length": (
        without_value("training.json", "max_length"),
        CheckpointError,
        "lacks or garbles 'max_length'",
    ),
    "other task": (
        with_value("training.json", "task", "regression"),
        CheckpointError,
        "trained for 'regression'",
    ),
    "fewer labels": (
        with_value("training.json", "labels", ["a", "b"]),
        CheckpointError,
        "config.json names 3 labels, training.json 2",
    ),
    "other order": (
        with_value("training.json", "labels", ["positive", "neutral", "negative"]),
        CheckpointError,
        "label 0 is 'negative' in config.json, but 'positive' in training.json",
    ),
    "no exam": (without("exam.jsonl"), ExamError, "without held-out rows nothing"),
    "small exam": (
        with_exam('{"text": "soup", "labels": ["neutral"]}'),
        ExamError,
        "has 1 rows, fewer than the 50 needed",
    ),
    "no row": (with_exam(*["soup"] * 50), ExamError, "line 1 is no exam row"),
    "no text": (
        with_exam(*['{"text": 3, "labels": ["neutral"]}'] * 50),
        ExamError,
        "is not a string",
    ),
    "unknown label": (
        with_exam(*['{"text": "soup", "labels": ["great"]}'] * 50),
        ExamError,
        "no label 'great'",
    ),
    "two labels": (
        with_exam(*['{"text": "soup", "labels": ["neutral", "positive"]}'] * 50),
        ExamError,
        "has 2 labels",
    ),
    "other encoding": (
        lambda folder: (folder / "exam.jsonl").write_bytes(b'{"text": "caf\xe9"}\n'),
        ExamError,
        "is not UTF-8",
    ),
}


@pytest.mark.parametrize(("change", "error", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_checkpoint_is_refused(
    make_checkpoint: MakeCheckpoint, change: Change, error: type[ExportError], words: str
) -> None:
    """What is wrong is said in one line, and the command ends with 1."""
    folder = make_checkpoint(change=change)

    with pytest.raises(error, match=words) as caught:
        read_exam(read_checkpoint(folder), min_rows=50, limit=1000)

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_exam_is_cut_at_even_distances(bert: Path) -> None:
    """A limited exam reaches from the first rows to the last; in random order, the same each time."""
    checkpoint = read_checkpoint(bert)
    whole = read_exam(checkpoint, min_rows=1, limit=1000)
    some = read_exam(checkpoint, min_rows=1, limit=16)

    assert (len(whole.rows), len(some.rows), some.held_out) == (EXAM_ROWS, 16, EXAM_ROWS)
    lines = (bert / "exam.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert sorted(row.text for row in some.rows) == sorted(texts[::4])
    assert [row.text for row in whole.rows] != texts
    assert whole.rows == read_exam(checkpoint, min_rows=1, limit=1000).rows


def test_truth_is_what_the_rows_say(make_checkpoint: MakeCheckpoint) -> None:
    """Several labels, one or none of them may be true."""
    rows = [["positive", "negative"], ["neutral"], []]
    lines = [json.dumps({"text": "soup", "labels": labels}) for labels in rows]
    folder = make_checkpoint(task="multi_label", change=with_exam(*lines))

    exam = read_exam(read_checkpoint(folder), min_rows=3, limit=1000)

    assert sorted(exam.truth().tolist()) == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
