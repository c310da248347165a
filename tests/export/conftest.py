"""Sealed checkpoints of a few thousand random weights, written by hand as the contract has it.

The exam holds the texts that the model itself is surest of, with its own answers as truth: fp32
scores 1.0, a faithful int8 graph nearly so, and a broken one does not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from export import ExportOptions
from export.checkpoint import Checkpoint, read_checkpoint
from export.exam import Exam, read_exam
from export.options import Objective
from export.recipes.material import Material
from registry.artifact import staged
from serving.engine import TextTokenizer, probabilities
from serving.package import Task
from serving.session import Encoding, padded

if TYPE_CHECKING:
    from export.result import ExportResult

WORDS = (
    *("soup", "staff", "price", "taste", "cold", "warm", "good", "bad"),
    *("very", "not", "never", "again", "the", "was", "and"),
)
LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 24
EXAM_ROWS = 64
_DRAWN = 4 * EXAM_ROWS
QUICK = ("int8-row-wise,int8-per-channel",)
OBJECTIVE: Objective = (
    "size"  # bytes are the same each time; which of two is faster here and now is not
)
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH + 8,
}
Change = Callable[[Path], object]
MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Seal a checkpoint; *change* may spoil the folder before it is sealed."""

    def make(
        architecture: str = "bert",
        *,
        task: Task = "single_label",
        text_pair: bool = False,
        change: Change | None = None,
        **config: Any,
    ) -> Path:
        target = tmp_path_factory.mktemp("checkpoint") / "tiny"
        lineage = {"dataset": "reviews/1", "base_model": f"tiny-{architecture}"}
        with staged(target, kind="checkpoint", lineage=lineage) as folder:
            _write_checkpoint(folder, architecture, task, text_pair=text_pair, config=config)
            if change is not None:
                change(folder)
        return target

    return make


@pytest.fixture(scope="session")
def bert(make_checkpoint: MakeCheckpoint) -> Path:
    """Single-label BERT."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def paper(bert: Path) -> tuple[Checkpoint, Exam]:
    """The BERT as export reads it, and its exam."""
    checkpoint = read_checkpoint(bert)
    return checkpoint, read_exam(checkpoint, min_rows=EXAM_ROWS, limit=1000)


@pytest.fixture(scope="session")
def encodings(paper: tuple[Checkpoint, Exam]) -> list[Encoding]:
    """The exam's texts, as the model sees them."""
    checkpoint, exam = paper
    tokenizer = TextTokenizer(checkpoint.folder / "tokenizer.json", max_length=MAX_LENGTH)
    return tokenizer.encode([row.text for row in exam.rows])


@pytest.fixture(scope="session")
def exported(
    paper: tuple[Checkpoint, Exam],
    encodings: list[Encoding],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The BERT's fp32 graph."""
    from export.fp32 import export_fp32

    return export_fp32(paper[0], encodings, tmp_path_factory.mktemp("fp32"))[0]


@pytest.fixture(scope="session")
def slimmed(exported: Path) -> Path:
    """The same, slimmed."""
    import onnx

    from export.recipes.slim import slim

    target = exported.with_name("slim.onnx")
    onnx.save(slim(exported, longest=MAX_LENGTH), str(target))
    return target


@pytest.fixture(scope="session")
def material(exported: Path, slimmed: Path, encodings: list[Encoding]) -> Material:
    """What recipes are given; the exam's first texts stand in for training texts."""
    return Material(
        exported=exported,
        slim=slimmed,
        calibration=encodings[:24],
        pad_token_id=1,
        heads=2,
        hidden_size=32,
        flip_budget=0.02,
    )


@pytest.fixture(scope="session")
def packaged_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one package in it, for the laws about finished exports."""
    return tmp_path_factory.mktemp("packaged")


@pytest.fixture(scope="session")
def result(bert: Path, packaged_home: Path) -> Iterator[ExportResult]:
    """The BERT, exported with an alias; two candidates are enough for the laws."""
    from export import export_package

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIML_HOME", str(packaged_home))
        yield export_package(
            ExportOptions(
                checkpoint=str(bert), alias="champion", candidates=QUICK, objective=OBJECTIVE
            )
        )


def _write_checkpoint(
    folder: Path, architecture: str, task: Task, *, text_pair: bool, config: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = _tokenizer()
    tokenizer.enable_padding()  # a package must not keep it
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(  # type: ignore[no-untyped-call]
            architecture,
            **{
                **_SIZES,
                "vocab_size": tokenizer.get_vocab_size(),
                "initializer_range": 0.5,  # so that answers differ from text to text
                "pad_token_id": 1,
                "id2label": dict(enumerate(LABELS)),
                "label2id": {label: index for index, label in enumerate(LABELS)},
                **config,
            },
        )
    ).eval()
    model.save_pretrained(folder)
    training = {
        "schema_version": 1,
        "task": task,
        "text_pair": text_pair,
        "labels": LABELS,
        "max_length": MAX_LENGTH,
        "base_model": f"tiny-{architecture}",
    }
    (folder / "training.json").write_text(json.dumps(training))
    texts = _sentences(2 * _DRAWN)
    pairs = texts[_DRAWN:] if text_pair else None
    rows = _surest(model, folder, texts[:_DRAWN], pairs, task)
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _surest(
    model: Any, folder: Path, texts: Sequence[str], pairs: Sequence[str] | None, task: Task
) -> list[dict[str, Any]]:
    """Exam rows with the model's own answers: those whose decision is furthest from another."""
    import torch

    tokenizer = TextTokenizer(folder / "tokenizer.json", max_length=MAX_LENGTH)
    feed = padded(tokenizer.encode(texts, pairs), pad_token_id=1)
    if getattr(model.config, "type_vocab_size", 0) <= 1:
        del feed["token_type_ids"]
    if model.config.model_type == "fnet":
        del feed["attention_mask"]
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
        chances = probabilities(model(**tensors).logits.numpy(), task)
    ordered = np.sort(chances, axis=1)
    single = task == "single_label"
    margins = ordered[:, -1] - ordered[:, -2] if single else np.abs(chances - 0.5).min(axis=1)
    given = [[row.argmax()] if single else np.flatnonzero(row >= 0.5) for row in chances]
    rows = []
    for index in np.argsort(-margins, kind="stable")[:EXAM_ROWS]:
        row = {"text": texts[index], "labels": [LABELS[label] for label in given[index]]}
        rows.append(row if pairs is None else {**row, "text_pair": pairs[index]})
    return rows


def _tokenizer() -> Tokenizer:
    """Whole words; padding is 1, as RoBERTa counts positions from it."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    vocabulary = {word: index for index, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def _sentences(count: int) -> list[str]:
    """Words in random order, 1 to 30 of them: some are longer than the model reads."""
    drawn = random.Random(0)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 30))) for _ in range(count)]
