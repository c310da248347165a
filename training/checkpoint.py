"""What goes into a checkpoint folder: the contract between train, which writes it, and export.

    config.json, model.safetensors    the classifier, with its labels and problem type
    tokenizer.json, ...               its tokenizer, without padding or truncation
    training.json                     `TrainingRecord`
    exam.jsonl                        every test row: text, text_pair, names of its labels
    report.html                       for people

It knows files; sealing and publishing are the registry's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.classifier import Task
from training.resume import disk_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SCHEMA_VERSION = 1
TRAINING, EXAM, REPORT = "training.json", "exam.jsonl", "report.html"
_ONE_FILE = "1TB"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """`training.json`: all that is known of a run when it ends.

    config: options and what was made of them. metrics: `Scores.document()` of the test split.
    dataset: reference, digest and fingerprint. history: [metric, step, value] rows. wall_s: of
    the process that ended the run; resumed_from_step: 0 when it also began it.
    """

    task: Task
    text_pair: bool
    labels: tuple[str, ...]
    max_length: int
    base_model: str
    base_model_sha256: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    dataset: Mapping[str, str]
    versions: Mapping[str, str]
    steps: int
    best_step: int
    resumed_from_step: int
    history: tuple[tuple[str, int, float], ...]
    wall_s: float
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """`training.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"


def exam_rows(split: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The test rows as `exam.jsonl` has them: `labels` are names, exactly one for single-label."""
    pairs = "text_pair" in split.column_names
    rows = []
    for row in split:
        numbers = row["labels"] if "labels" in row else [row["label"]]
        texts = {"text": row["text"], **({"text_pair": row["text_pair"]} if pairs else {})}
        rows.append({**texts, "labels": [labels[number] for number in numbers]})
    return rows


def write_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Model and tokenizer as transformers loads them, in one safetensors file.

    A full disk is an OSError.
    """
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    with disk_errors(folder):
        model.save_pretrained(folder, safe_serialization=True, max_shard_size=_ONE_FILE)
        tokenizer.save_pretrained(folder)


def write_documents(
    folder: Path, *, record: TrainingRecord, exam: Sequence[Mapping[str, Any]], report: str
) -> None:
    """`training.json`, `exam.jsonl` and `report.html`."""
    (folder / TRAINING).write_bytes(record.to_bytes())
    with (folder / EXAM).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in exam)
    (folder / REPORT).write_text(report, encoding="utf-8")
