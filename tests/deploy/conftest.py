"""A package of a few bytes, sealed as an export would: what platforms carry around unread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.artifact import staged
from serving.package import (
    CARD,
    CONFIG,
    COST,
    GATES,
    GOLDEN,
    MODEL,
    TOKENIZER,
    CostGrid,
    GoldenAnswer,
    PackageConfig,
    Runtime,
)

LINEAGE = {"dataset": "reviews/4", "dataset_digest": "d" * 64, "checkpoint": "reviews/2"}


def write_package(target: Path, *, runtime: Runtime = "onnxruntime") -> Path:
    """Seal a package whose graph is no graph at *target*."""
    config = PackageConfig(
        name="reviews",
        task="single_label",
        text_pair=False,
        labels=("bad", "good"),
        max_length=32,
        pad_token_id=0,
        inputs=("input_ids", "attention_mask"),
        precision="int8-row-wise",
        batch_invariant=True,
        base_model="a base",
        runtime=runtime,
    )
    cost = CostGrid(batches=(1,), lengths=(8,), ms=((1.0,),), threads=1, machine="a machine")
    with staged(target, kind="package", lineage=LINEAGE) as folder:
        (folder / MODEL).write_bytes(b"a graph")
        (folder / TOKENIZER).write_text("{}")
        (folder / CONFIG).write_bytes(config.to_bytes())
        (folder / COST).write_bytes(cost.to_bytes())
        (folder / GATES).write_text(json.dumps({"fp32": {}}))
        (folder / GOLDEN).write_text(GoldenAnswer(text="well", logits=(0.0, 1.0)).to_line() + "\n")
        (folder / CARD).write_text("# reviews\n\nStars of a review.\n")
    return target


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package for CPUs, in a folder of its own."""
    return write_package(tmp_path / "package")


@pytest.fixture
def gpu_package(tmp_path: Path) -> Path:
    """The same, exported for a GPU."""
    return write_package(tmp_path / "gpu-package", runtime="cuda")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer of 16 that reads letters: what a base model is, but for its knowledge."""
    import string

    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "tiny"
    folder.mkdir()
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [*letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    vocabulary = str(folder / "vocab.txt")
    BertTokenizerFast(vocab_file=vocabulary).save_pretrained(folder)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder
