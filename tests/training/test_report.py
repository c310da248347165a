"""The page shows what it should, loads nothing, and lets no text become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from training.metrics import Scores, multi_label_scores, row_losses, single_label_scores
from training.report import HardRow, ReportContent, hardest_rows, render_report

HISTORY = (
    ("train_loss", 1, 1.5),
    ("train_loss", 2, 0.9),
    ("validation_loss", 2, 1.0),
    ("validation_accuracy", 2, 0.6),
    ("validation_macro_f1", 2, 0.5),
)
EVIL = '<script>alert(1)</script> <img src="https://evil.example/x.png"> & "quotes"'


class Page(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))


def scores_of(count: int, *, multi: bool) -> Scores:
    """Some scores over *count* labels."""
    generator = np.random.default_rng(0)
    labels = [f"label {number}" for number in range(count)]
    logits = generator.normal(size=(300, count))
    if multi:
        return multi_label_scores(logits, generator.integers(0, 2, size=(300, count)), labels)
    return single_label_scores(logits, generator.integers(0, count, size=300), labels)


def page_of(scores: Scores, *, text: str = "fine", label: str = "good") -> str:
    """The report with one hardest row."""
    hard = HardRow(text=text, text_pair=text, true=(label,), answered=((label, 0.5),), loss=2.0)
    return render_report(
        ReportContent(
            title=text,
            scores=scores,
            history=HISTORY,
            best_step=2,
            hardest=[hard],
            facts={"Lineage": {"dataset": text}},
        )
    )


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("count", [2, 5, 77])
def test_the_page_loads_nothing(count: int, *, multi: bool) -> None:
    """No attribute and no style names an address; what SVG refers to is inside the page."""
    text = page_of(scores_of(count, multi=multi))
    loading = ("src", "href", "xlink:href", "data", "srcset", "action", "poster")
    named = [
        value for _, attrs in Page(text).tags for key, value in attrs.items() if key in loading
    ]

    assert all(value is not None and value.startswith("#") for value in named)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "img", "image"} & {tag for tag, _ in Page(text).tags}


@pytest.mark.parametrize("multi", [False, True])
def test_the_page_shows_what_it_should(*, multi: bool) -> None:
    """Curves, reliability, every label, and the matrix where there is one."""
    text = page_of(scores_of(5, multi=multi))

    assert text.count("<svg") == (3 if multi else 4)
    assert all(f">label {number}<" in text for number in range(5))
    assert ("Confusion matrix" in text) is not multi
    assert "Expected calibration error" in text


def test_texts_stay_text() -> None:
    """Whatever stands in a text or a label, the page shows it and never runs it."""
    text = page_of(scores_of(2, multi=False), text=EVIL, label=EVIL)

    assert "<script" not in text
    assert "evil.example" in text
    assert not [tag for tag, _ in Page(text).tags if tag in ("script", "img")]


def test_labels_in_figures_stay_text() -> None:
    """A label with markup or a formula in it is drawn as it is written."""
    names = ["<i>slanted</i>", "$x^2$ costs $5"]
    scores = single_label_scores(np.eye(2), np.array([0, 1]), names)
    text = page_of(scores)

    assert "<i>" not in text
    assert "$x^2$ costs $5" in text


def test_equal_content_gives_equal_bytes() -> None:
    """The page has no clock and no chance in it."""
    scores = scores_of(3, multi=False)

    assert page_of(scores) == page_of(scores)


def test_hardest_rows_come_first() -> None:
    """The rows are those of highest loss, in order, with what was true and what was answered."""
    generator = np.random.default_rng(0)
    logits, truths = generator.normal(size=(50, 3)), generator.integers(0, 3, size=50)
    names = ["a", "b", "c"]
    rows = [{"text": f"row {n}", "labels": [names[truth]]} for n, truth in enumerate(truths)]
    hardest = hardest_rows(rows, logits, truths, names)
    losses = sorted(row_losses(logits, truths), reverse=True)

    assert [row.loss for row in hardest] == pytest.approx(losses[: len(hardest)])
    for row in hardest:
        number = int(row.text.removeprefix("row "))
        assert row.true == (names[truths[number]],)
        assert row.answered[0][0] == names[int(logits[number].argmax())]


def test_a_row_without_labels_is_shown_so() -> None:
    """Multi-label: no true label and no answered label are both said."""
    rows = [{"text": "nothing here", "labels": []}]
    hardest = hardest_rows(rows, np.array([[-3.0, -1.0]]), np.array([[0.0, 0.0]]), ["a", "b"])

    assert hardest[0].true == ()
    assert hardest[0].answered == ()
