"""Training rows are found by lineage, in the checkpoint's own label numbers, or said to be gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from export import ExportOptions, export_package
from export.checkpoint import Checkpoint
from export.exam import Exam
from export.training_rows import read_training_rows
from registry import store
from registry.artifact import staged
from registry.publishing import publish
from serving.engine import Engine
from serving.package import open_package

LABELS = ["positive", "negative", "neutral"]  # not the checkpoint's order


@pytest.fixture
def dataset(miniml_home: Path, tmp_path: Path) -> str:
    """A published dataset of sixty rows; its reference."""
    assert miniml_home.exists()
    rows = {
        "text": [f"soup {number} was good" for number in range(60)],
        "label": [number % 3 for number in range(60)],
    }
    with staged(tmp_path / "rows", kind="dataset", lineage={}) as folder:
        datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "train"))
        (folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return publish(tmp_path / "rows", name="rows", recipe="x", params={}, metrics={}).reference


def test_rows_come_with_the_checkpoints_labels(
    dataset: str, paper: tuple[Checkpoint, Exam]
) -> None:
    """A label is found by its name, not by its number in the dataset."""
    found = read_training_rows({"dataset": dataset}, paper[0], limit=1000)

    assert found.missing == ""
    assert len(found.rows) == 60
    for row in found.rows:
        number = int(row.text.split()[1])
        (place,) = row.truth
        assert paper[0].labels[place] == LABELS[number % 3]


def test_some_rows_are_a_sample(dataset: str, paper: tuple[Checkpoint, Exam]) -> None:
    """In random order, the same each time, none twice."""
    some = read_training_rows({"dataset": dataset}, paper[0], limit=20)

    assert len({row.text for row in some.rows}) == 20
    assert some == read_training_rows({"dataset": dataset}, paper[0], limit=20)
    assert [row.text for row in some.sample(5)] == [row.text for row in some.rows[:5]]


@pytest.mark.parametrize(
    ("lineage", "why"), [({}, "names no dataset"), ({"dataset": "nowhere/7"}, "nowhere/7 cannot")]
)
@pytest.mark.usefixtures("miniml_home")
def test_missing_rows_are_said(
    paper: tuple[Checkpoint, Exam], lineage: dict[str, str], why: str
) -> None:
    """Without rows there is a reason, not an error: other candidates need none."""
    found = read_training_rows(lineage, paper[0], limit=10)

    assert found.rows == ()
    assert why in found.missing


def trained_on(dataset: str, source: Path, target: Path) -> Path:
    """The checkpoint *source*, said to be trained on *dataset*."""
    with staged(target, kind="checkpoint", lineage={"dataset": dataset}) as folder:
        for path in source.iterdir():
            if path.name != "manifest.json":
                (folder / path.name).write_bytes(path.read_bytes())
    return target


def test_thresholds_are_stored_and_served(
    dataset: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Each label has one, fitted on training rows; the engine gives a label exactly from there on."""
    source = make_checkpoint(task="multi_label")
    checkpoint = trained_on(dataset, source, tmp_path / "again")

    made = export_package(
        ExportOptions(checkpoint=str(checkpoint), candidates=("fp32",), tune_thresholds=True)
    )
    package = open_package(made.folder)
    thresholds = package.config.thresholds
    texts = [answer.text for answer in package.golden()]

    assert thresholds is not None
    assert len(thresholds) == 3
    assert set(thresholds) != {0.5}
    assert package.config.temperature == 1.0
    assert package.gates["tuned"].keys() == {"training_rows", "macro_f1_before", "macro_f1"}
    for answer in Engine(package).predict(texts):
        labelled = zip(package.config.labels, answer.scores, thresholds, strict=True)
        assert dict(answer.labels or ()) == {
            label: score for label, score, threshold in labelled if score >= threshold
        }


def test_calibration_is_stored_and_weighed(dataset: str, bert: Path, tmp_path: Path) -> None:
    """The temperature is in the package, and what it does to the exam stands beside it."""
    checkpoint = trained_on(dataset, bert, tmp_path / "again")

    made = export_package(
        ExportOptions(checkpoint=str(checkpoint), candidates=("fp32",), calibrate=True)
    )
    package = open_package(made.folder)

    assert package.config.temperature != 1.0
    assert package.gates["tuned"]["temperature"] == package.config.temperature
    assert package.gates["tuned"]["training_rows"] == 60
    assert package.config.thresholds is None
    assert store.find(kind="package", name=made.version.name, recipe="other") is None
