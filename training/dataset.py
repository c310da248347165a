"""The dataset: the contract between transform, which writes it, and train, which reads it.

A sealed folder with Arrow splits `train/` and `test/` and `dataset.json`. Rows have `text` (string),
`text_pair` (string, pairs only), and `label` (int64) or, multi-label, `labels` (list of int64,
ascending, may be empty), indices into `DatasetInfo.labels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from training.errors import DatasetError

INFO = "dataset.json"
SCHEMA_VERSION = 1
SPLITS = ("train", "test")
Split = Literal["train", "test"]
Task = Literal["single_label", "multi_label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """`dataset.json`.

    columns: source columns of `text` and `label`. counts: split -> {rows, per_label: name -> rows}.
    dropped: reason -> rows. length_words: percentile name -> words, over the train split.
    fingerprint: sha256 over the rows of both splits in order.
    """

    name: str
    task: Task
    text_pair: bool
    columns: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    counts: Mapping[str, Mapping[str, Any]]
    dropped: Mapping[str, int]
    length_words: Mapping[str, float]
    source: str
    seed: int
    train_test_split_ratio: float
    fingerprint: str
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def label_column(self) -> str:
        """`label` or `labels`."""
        return "label" if self.task == "single_label" else "labels"


def read_info(folder: Path) -> DatasetInfo:
    """`dataset.json` of *folder*. Raises `DatasetError`."""
    path = folder / INFO
    try:
        return _parse(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); transform the rows again.") from error


def _parse(document: dict[str, Any]) -> DatasetInfo:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {document['schema_version']}, not {SCHEMA_VERSION}")
    document["labels"] = tuple(document["labels"])
    document["columns"] = {key: tuple(names) for key, names in document["columns"].items()}
    return DatasetInfo(**document)


def load_split(folder: Path, split: Split) -> Any:
    """The `datasets.Dataset` of one split, memory-mapped."""
    from datasets import load_from_disk

    return load_from_disk(str(folder / split))
