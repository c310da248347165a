"""Laws of canonical forms at export: judged on the exam, and refused when they change too much."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export import ExportOptions, export_package
from export.answers import Answers
from export.canonical import check_forms, reproducible, weigh
from export.checkpoint import Checkpoint
from export.errors import CanonicalizerRefused
from export.exam import Exam
from export.gates import decisions
from registry import store
from serving.canonical import BUILT_IN
from serving.engine import Engine
from serving.errors import PackageError
from serving.lanes import Lanes
from serving.package import CONFIG, GATES, Package, open_package

if TYPE_CHECKING:
    from export.result import ExportResult

OWN = '''
"""A user's own."""


def without_not(text):
    """What must not be done to a review."""
    return " ".join(word for word in text.split() if word not in ("not", "never"))


def shouting(text):
    """Every time more."""
    return text + "!"


def failing(text):
    """On one word."""
    return text.replace("soup", "soup" if len(text) < 20 else 1)


WORDS = []
'''
BOTH = "serving.canonical:collapsed_casefolded"
LANES = Lanes(count=1, threads=1)
ANY = ExportOptions(max_flip_percent=100.0, max_accuracy_drop_points=100.0)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, importable while the test runs."""
    (tmp_path / "own_forms_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_forms_of_a_test"
    sys.modules.pop("own_forms_of_a_test", None)


@pytest.fixture
def package(result: ExportResult) -> Package:
    """As exported, without a canonicaliser."""
    return open_package(result.folder)


@pytest.fixture
def loud(paper: tuple[Checkpoint, Exam]) -> Exam:
    """The exam with every third row in capitals, which the model does not know."""
    exam = paper[1]
    rows = [
        replace(row, text=row.text if place % 3 else row.text.upper())
        for place, row in enumerate(exam.rows)
    ]
    return replace(exam, rows=rows)


def reading_as(package: Package, path: str) -> Engine:
    """The package's engine, its texts read as *path* makes them."""
    config = replace(package.config, canonicalizer=path)
    return Engine(replace(package, config=config), allow_code=path)


def answers_to(package: Package, exam: Exam) -> Answers:
    """Of its engine, to the texts as they are."""
    alone = Engine(package).logits([row.text for row in exam.rows])
    return Answers(alone=alone, mixed=alone, deterministic=True)


def test_it_is_weighed_as_it_will_be_served(package: Package, loud: Exam) -> None:
    """The numbers are the engine's own, with and without: every answer is asked again here."""
    engine, without = reading_as(package, BOTH), answers_to(package, loud)
    answers, found = weigh(engine, loud, without, ANY, LANES)
    truth, total = loud.truth(), len(loud.rows)
    sheets = [decisions(sheet.alone, loud.task) for sheet in (without, answers)]
    before, after = ((sheet == truth).all(axis=1).mean() for sheet in sheets)

    np.testing.assert_array_equal(answers.alone, engine.logits([row.text for row in loud.rows]))
    assert (found.exam_rows, found.rows_changed) == (total, len(loud.rows[::3]))
    assert found.rows_read_otherwise == found.rows_changed
    assert (found.accuracy, found.accuracy_without) == pytest.approx((after, before))
    assert found.accuracy_change > 0
    assert found.label_flip_rate == (sheets[0] != sheets[1]).any(axis=1).mean()
    with pytest.raises(CanonicalizerRefused, match=r"answers differ with it"):
        weigh(engine, loud, without, ExportOptions(), LANES)


def test_what_changes_no_token_changes_nothing(
    package: Package, paper: tuple[Checkpoint, Exam]
) -> None:
    """Texts that are their own forms keep their answers, bit for bit."""
    without = answers_to(package, paper[1])
    answers, found = weigh(reading_as(package, BOTH), paper[1], without, ExportOptions(), LANES)

    assert (found.rows_changed, found.rows_read_otherwise) == (0, 0)
    assert (found.label_flip_rate, found.accuracy_change) == (0, 0)
    np.testing.assert_array_equal(answers.alone, without.alone)


def test_lost_accuracy_is_refused_by_its_own_budget(
    package: Package, paper: tuple[Checkpoint, Exam], own: str
) -> None:
    """Though flips may be as many as they like."""
    engine, without = reading_as(package, f"{own}:without_not"), answers_to(package, paper[1])
    options = ExportOptions(max_flip_percent=100.0)
    with pytest.raises(CanonicalizerRefused, match=r"accuracy falls by .*--max-accuracy-drop 1;"):
        weigh(engine, paper[1], without, options, LANES)


def test_one_that_deletes_not_is_refused_and_a_good_one_is_packaged(
    bert: Path, own: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused: the share, the budget, a text, exit code 1, no package. Packaged: the numbers everywhere."""
    import miniml

    path = f"{own}:without_not"
    command = ["miniml", "export", str(bert), "--candidates", "fp32", "--canonicalizer", path]
    command += ["--budget-minutes", "0.3"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        miniml.main()
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 1
    for words in (f"{path} is refused", "more than --max-flips 2 %", "is read as", " becomes "):
        assert words in said
    assert store.list_versions(kind="package") == []

    # It goes on with the search that was finished.
    options = ExportOptions(
        checkpoint=str(bert), candidates=("fp32",), canonicalizer=BOTH, budget_minutes=0.3
    )
    made = export_package(options)
    served = open_package(made.folder)
    gates = json.loads((made.folder / GATES).read_bytes())
    assert served.config.canonicalizer == gates["canonicalizer"]["path"] == BOTH
    assert json.loads((made.folder / CONFIG).read_bytes())["canonicalizer"] == BOTH
    sentence = f"texts are read as {BOTH} makes them: 0 of 64 exam rows are read otherwise"
    for file in ("README.md", "export.html"):
        assert sentence in (made.folder / file).read_text()
    assert any(sentence in str(line) for line in made.__rich__().renderables)
    assert export_package(replace(options, reuse=True)).reused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shouting", "applied twice it does not give what it gives once"),
        ("failing", "On the exam, .*failing failed on text"),
    ],
)
def test_one_without_forms_is_refused_before_the_work(
    paper: tuple[Checkpoint, Exam], own: str, name: str, words: str
) -> None:
    """A form that is not its own form, with the text; a function that fails on the exam."""
    with pytest.raises(CanonicalizerRefused, match=words):
        check_forms(f"{own}:{name}", paper[1])


@pytest.mark.parametrize("path", ["no_such_module:f", "{own}:no_such_name", "{own}:WORDS", "f"])
def test_a_path_that_leads_nowhere_is_refused_before_the_work(
    bert: Path, own: str, path: str
) -> None:
    """In one sentence."""
    options = ExportOptions(checkpoint=str(bert), canonicalizer=path.format(own=own))
    with pytest.raises(PackageError):
        export_package(options)


def test_only_miniml_s_own_are_known_by_their_name(own: str) -> None:
    """What another's code does may change, so a package made with it is not found again by options."""
    assert all(map(reproducible, (None, *BUILT_IN)))
    assert not reproducible(f"{own}:without_not")
