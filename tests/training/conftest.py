"""A base model of a few thousand weights, and sealed datasets written without transform."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.artifact import staged

Rows = Sequence[Mapping[str, Any]]
MakeDataset = Callable[..., Path]

COLOURS = ("red", "green", "blue")
FILLERS = ("the", "a", "of", "and", "it", "was", "with", "very", "quite", "old", "new", "big")


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for all tests of a file that ask for it: a new registry for each test would take seconds."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIML_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers of 32 with a WordPiece tokenizer that knows some twenty words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "tiny"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *FILLERS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    vocabulary = str(folder / "vocab.txt")
    BertTokenizerFast(vocab_file=vocabulary).save_pretrained(folder)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # large enough that a few dozen steps suffice
    )
    BertModel(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """Seal rows as a dataset folder, as the contract of `training.dataset` has it."""

    def make(train: Rows, test: Rows, *, labels: Sequence[str], name: str = "colours") -> Path:
        from datasets import Dataset

        multi = "labels" in train[0]
        document = {
            "schema_version": 1,
            "name": name,
            "task": "multi_label" if multi else "single_label",
            "text_pair": "text_pair" in train[0],
            "columns": {"text": ["text"], "label": ["label"]},
            "labels": list(labels),
            "counts": {
                split: {"rows": len(rows), "per_label": {}}
                for split, rows in (("train", train), ("test", test))
            },
            "dropped": {},
            "length_words": {},
            "source": "a test",
            "seed": 0,
            "train_test_split_ratio": 0.2,
            "fingerprint": "0" * 64,
        }
        target = tmp_path_factory.mktemp("dataset") / name
        with staged(target, kind="dataset", lineage={}) as folder:
            for split, rows in (("train", train), ("test", test)):
                Dataset.from_list([dict(row) for row in rows]).save_to_disk(str(folder / split))
            (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
        return target

    return make


def sentence(generator: random.Random, *colours: str) -> str:
    """Fillers of any number with *colours* somewhere among them."""
    words = [*generator.choices(FILLERS, k=generator.randint(2, 12)), *colours]
    generator.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="session")
def colours(make_dataset: MakeDataset) -> Path:
    """Single-label and separable: the label is the colour that the text names."""
    generator = random.Random(0)
    rows = [
        {"text": sentence(generator, COLOURS[number % 3]), "label": number % 3}
        for number in range(160)
    ]
    return make_dataset(rows[:130], rows[130:], labels=COLOURS)


@pytest.fixture(scope="session")
def several_colours(make_dataset: MakeDataset) -> Path:
    """Multi-label: all the colours that the text names, or none."""
    generator = random.Random(1)
    rows = []
    for _ in range(480):
        labels = sorted(generator.sample(range(3), k=generator.randint(0, 3)))
        text = sentence(generator, *(COLOURS[label] for label in labels))
        rows.append({"text": text, "labels": labels})
    return make_dataset(rows[:450], rows[450:], labels=COLOURS, name="several")


@pytest.fixture(scope="session")
def colour_pairs(make_dataset: MakeDataset) -> Path:
    """Pairs: whether the second text names the first one's colour."""
    generator = random.Random(2)
    rows = []
    for number in range(80):
        first, second = generator.sample(COLOURS, k=2)
        rows.append(
            {
                "text": sentence(generator, first),
                "text_pair": sentence(generator, first if number % 2 else second),
                "label": number % 2,
            }
        )
    return make_dataset(rows[:60], rows[60:], labels=("other", "same"), name="pairs")
