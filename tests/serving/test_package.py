"""Laws of the contract: what the exam's answers were travels with the package, or is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.artifact import MANIFEST, seal
from serving.engine import Engine
from serving.errors import PackageError
from serving.package import CONFIDENCE_EDGES, EXAM_MIX, Package, open_package

Draw = Callable[[int, int], list[str]]


def changed(package: Package, target: Path, **values: Any) -> Path:
    """A copy of *package* whose exam.json has other *values*, sealed again."""
    shutil.copytree(package.folder, target)
    (target / MANIFEST).unlink()
    path = target / EXAM_MIX
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))
    seal(target, kind="package", lineage={})
    return target


def test_the_exam_is_counted_as_the_engine_answers(package: Package, draw: Draw) -> None:
    """Each row is in the bin of its score and under its label, as `Engine.predict` has them."""
    answers = list(Engine(package).predict(draw(200, 0)))
    exam = package.exam

    assert exam is not None
    assert exam.rows == len(answers) == sum(exam.confidence)
    for place, label in enumerate(package.config.labels):
        assert exam.labels[place] == sum(answer.label == label for answer in answers)
    for edge, below in zip(
        exam.edges, (sum(exam.confidence[: n + 1]) for n in range(len(exam.edges))), strict=True
    ):
        assert below == sum(answer.score <= edge for answer in answers)
    assert exam.confidence_sum == pytest.approx(sum(answer.score for answer in answers))


def test_the_exams_answers_are_read_as_written(package: Package, tmp_path: Path) -> None:
    """Through the file and back; bins are those of the file, whatever later versions count in."""
    assert package.exam is not None
    assert package.exam.edges == CONFIDENCE_EDGES
    folder = changed(package, tmp_path / "two", edges=[0.5, 1.0], confidence=[40, 160])
    found = open_package(folder).exam

    assert json.loads(package.exam.to_bytes()) == json.loads(
        (package.folder / EXAM_MIX).read_bytes()
    )
    assert found is not None
    assert (found.edges, found.confidence) == ((0.5, 1.0), (40, 160))
    assert found.labels == package.exam.labels


def test_packages_of_older_exports_have_none(make_package: Callable[..., Package]) -> None:
    """They open as before."""
    assert make_package(exam_rows=0).exam is None


@pytest.mark.parametrize(
    "values",
    [
        {"rows": 7},
        {"labels": [200]},
        {"confidence": [200]},
        {"edges": [1.0, 0.5], "confidence": [100, 100]},
        {"edges": [0.5, 0.9], "confidence": [100, 100]},
        {"edges": [], "confidence": []},
        {"edges": [0.5, 1.0], "confidence": [-1, 201]},
        {"labels": None},
    ],
)
def test_an_exam_that_does_not_add_up_is_refused(
    package: Package, tmp_path: Path, values: dict[str, Any]
) -> None:
    """Sealed or not, it is one sentence."""
    with pytest.raises(PackageError, match="export it again"):
        open_package(changed(package, tmp_path / "odd", **values))
