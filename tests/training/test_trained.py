"""Laws of a model that was fine-tuned elsewhere and is taken as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.dataset import read_info
from training.errors import BaseModelError
from training.options import TrainOptions
from training.train import TrainResult, train

TEXTS = ("a red house", "green grass over the hill", "the blue sea and a red boat")


@pytest.fixture(autouse=True)
def miniml_home(module_home: Path) -> Path:
    """Instead of the fresh home that every test has elsewhere."""
    return module_home


@pytest.fixture(scope="module")
def options(colours: Path, tiny_bert: Path) -> TrainOptions:
    """Enough to learn something."""
    return TrainOptions(
        dataset=str(colours),
        model_id=str(tiny_bert),
        iterations=20,
        batch_size=16,
        learning_rate=5e-3,
        device="cpu",
    )


@pytest.fixture(scope="module")
def trained(options: TrainOptions, module_home: Path) -> TrainResult:
    """A model of ours, which plays somebody else's."""
    return train(replace(options, output=module_home / "ours"))


def theirs(trained: TrainResult, target: Path, names: dict[int, str], order: list[int]) -> Path:
    """The same model in a plain folder, its logits in another *order* and under these *names*."""
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    with torch.no_grad():
        for values in model.classifier.parameters():
            values.copy_(values[order])
    model.config.id2label = names
    model.config.label2id = {name: place for place, name in names.items()}
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(trained.folder).save_pretrained(target)  # type: ignore[no-untyped-call]
    return target


def logits(folder: Path) -> list[dict[str, float]]:
    """What transformers alone says of some texts, by label."""
    tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(folder).train(mode=False)
    answers = []
    with torch.no_grad():
        for text in TEXTS:
            row = model(**tokenizer(text, return_tensors="pt")).logits[0].tolist()
            answers.append({model.config.id2label[place]: value for place, value in enumerate(row)})
    return answers


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]], ids=["as the dataset", "another order"])
def test_it_answers_as_before(
    trained: TrainResult, options: TrainOptions, tmp_path: Path, order: list[int]
) -> None:
    """Whatever the order of its labels: by name, logits and exam are those it always had."""
    labels = read_info(Path(options.dataset)).labels
    names = {place: labels[label] for place, label in enumerate(order)}
    folder = theirs(trained, tmp_path / "theirs", names, order)
    taken = train(replace(options, model_id=str(folder), iterations=0, output_name="taken"))

    for ours, others, first in zip(
        *map(logits, (taken.folder, folder, trained.folder)), strict=True
    ):
        assert ours == pytest.approx(others, abs=1e-5)  # a product's last bit follows its column
        assert ours == pytest.approx(first, abs=1e-5)
    assert taken.training["labels"] == list(labels)
    assert taken.training["metrics"]["accuracy"] == trained.training["metrics"]["accuracy"]
    assert taken.training["metrics"]["per_label"] == trained.training["metrics"]["per_label"]
    assert taken.training["steps"] == 0
    assert "Loss over time" not in (taken.folder / "report.html").read_text(encoding="utf-8")


def test_labels_without_names_are_in_the_datasets_order(
    trained: TrainResult, options: TrainOptions, tmp_path: Path
) -> None:
    """`LABEL_0` and so on say nothing, so they take the dataset's names."""
    names = {place: f"LABEL_{place}" for place in range(3)}
    folder = theirs(trained, tmp_path / "theirs", names, [0, 1, 2])
    taken = train(replace(options, model_id=str(folder), iterations=0, output_name="named"))

    assert logits(taken.folder) == logits(trained.folder)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            {0: "rouge", 1: "vert", 2: "bleu"},
            "answers 'rouge', 'vert', 'bleu', and the dataset has",
        ),
        (None, "no trained head"),
    ],
    ids=["other labels", "no head"],
)
def test_what_cannot_be_taken_is_refused(
    trained: TrainResult, options: TrainOptions, tmp_path: Path, names: Any, said: str
) -> None:
    """Other labels, and an encoder without a head, in one sentence with the way out."""
    folder = theirs(trained, tmp_path / "theirs", names, [0, 1, 2]) if names else options.model_id
    with pytest.raises(BaseModelError, match=said) as caught:
        train(replace(options, model_id=str(folder), iterations=0))

    assert "\n" not in str(caught.value)
