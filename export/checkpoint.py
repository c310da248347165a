"""The checkpoint as export reads it: a folder of documented files, whoever wrote it.

It reads JSON and looks at names and sizes; weights and tokenizer are opened by those who run them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import CheckpointError
from serving.package import Task

TRAINING, CONFIG, WEIGHTS, TOKENIZER = (
    "training.json",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
)
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# An ONNX file is one protobuf message, which cannot be larger.
_LARGEST_BYTES = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What export needs to know of a checkpoint folder.

    labels: in the order of the logits. heads, hidden_size: of one attention; 0 where `config.json`
    does not say.
    """

    folder: Path
    task: Task
    text_pair: bool
    labels: tuple[str, ...]
    max_length: int
    pad_token_id: int
    base_model: str
    weights_bytes: int
    heads: int = 0
    hidden_size: int = 0


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and check *folder*. Raises `CheckpointError` with one sentence."""
    training, config = _json(folder / TRAINING), _json(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = any((folder / name).exists() for name in _PICKLES)
        found = "only pickled weights, which are never loaded" if pickled else f"no {WEIGHTS}"
        raise CheckpointError(f"{folder} has {found}; train it again.")
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(f"{folder} has no {TOKENIZER}, which serving needs; train it again.")
    if weights.stat().st_size >= _LARGEST_BYTES:
        raise CheckpointError(
            f"{folder} has {weights.stat().st_size / 1e9:.1f} GB of weights, but one ONNX file holds"
            f" {_LARGEST_BYTES / 1e9:.1f} GB; fine-tune a smaller encoder."
        )
    try:
        checkpoint = Checkpoint(
            folder=folder,
            task=training["task"],
            text_pair=bool(training["text_pair"]),
            labels=tuple(map(str, training["labels"])),
            max_length=int(training["max_length"]),
            pad_token_id=int(config.get("pad_token_id") or 0),
            base_model=str(training["base_model"]),
            weights_bytes=weights.stat().st_size,
            heads=int(config.get("num_attention_heads") or config.get("n_heads") or 0),
            hidden_size=int(config.get("hidden_size") or config.get("dim") or 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / TRAINING} lacks or garbles {error}; train it again."
        ) from error
    _check_labels(checkpoint, config)
    return checkpoint


def _check_labels(checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Both documents must name the same labels in the same order."""
    if checkpoint.task not in ("single_label", "multi_label"):
        raise CheckpointError(
            f"{checkpoint.folder} was trained for {checkpoint.task!r}; export knows single_label"
            " and multi_label."
        )
    named = config.get("id2label")
    if not isinstance(named, dict):
        raise CheckpointError(f"{checkpoint.folder / CONFIG} has no id2label; train it again.")
    if len(named) != len(checkpoint.labels):
        raise CheckpointError(
            f"{checkpoint.folder}: {CONFIG} names {len(named)} labels, {TRAINING}"
            f" {len(checkpoint.labels)}; they must be the same."
        )
    for index, label in enumerate(checkpoint.labels):
        if str(named.get(str(index))) != label:
            raise CheckpointError(
                f"{checkpoint.folder}: label {index} is {named.get(str(index))!r} in {CONFIG}, but"
                f" {label!r} in {TRAINING}; they must be the same."
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing, so this is no checkpoint of miniml train."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); train it again.") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object; train it again.")
    return document
