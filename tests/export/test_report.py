"""The export page shows every candidate, loads nothing, and lets no text become markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.exam import ExamRow
from export.figures import CandidatePoint, pareto_front
from export.gates import decisions, paired_interval
from export.report import (
    ChangedRow,
    ExportReport,
    LabelFlips,
    changed_rows,
    label_flips,
    render_export_report,
)
from serving.agreement import wilson
from serving.package import Task

Logits = npt.NDArray[np.float32]
EVIL = '<script>alert(1)</script> <img src="https://evil.example/x.png"> & "quotes" $x^2$'
ROWS, LABELS = 400, 5
NAMES = [f"label {number}" for number in range(LABELS)]
TASKS: tuple[Task, ...] = ("single_label", "multi_label")


class Page(HTMLParser):
    """Every tag with its attributes, and all that is text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Remember it."""
        self.text += data


def speed(texts_per_s: float) -> dict[str, Any]:
    """A timing of a variant that fast."""
    batches, lengths = [1, 2, 4, 8, 16, 32], [16, 32, 64, 128, 256]
    ms = [[(0.6 + b * t / 90) * 140 / texts_per_s for t in lengths] for b in batches]
    return {
        "texts_per_s": texts_per_s,
        "texts_per_s_low": 0.96 * texts_per_s,
        "texts_per_s_high": 1.03 * texts_per_s,
        "latency_ms": 2100 / texts_per_s,
        "load_s": 0.8,
        "peak_memory_bytes": 612_000_000,
        "grid": {
            "batches": batches,
            "lengths": lengths,
            "ms": ms,
            "spread": [[1.03 for _ in lengths] for _ in batches],
        },
    }


def entry(
    name: str,
    *,
    flips: int = 0,
    texts_per_s: float | None = 140.0,
    model_bytes: int = 438_000_000,
    reasons: Sequence[str] = (),
) -> dict[str, Any]:
    """A candidate in `gates.json` that differs from fp32 in so many of 2000 rows."""
    return {
        "name": name,
        "accuracy": 0.91 - flips / 8000,
        "accuracy_change": -flips / 8000,
        "accuracy_change_interval": list(paired_interval(flips // 4, 0, 2000)),
        "macro_f1": 0.9 - flips / 8000,
        "macro_f1_change": -flips / 8000,
        "calibration_error": 0.031,
        "label_flip_rate": flips / 2000,
        "flip_interval": list(wilson(flips, 2000)),
        "batch_flip_rate": 0.0,
        "batch_flip_interval": list(wilson(0, 2000)),
        "batch_max_logit_difference": 3e-6,
        "batch_bit_equal": flips == 0,
        "batch_invariant": flips < 20,
        "deterministic": True,
        "max_probability_change": flips / 300,
        "mean_probability_change": flips / 9000,
        "model_bytes": model_bytes,
        "exam_rows": 2000,
        "reasons": list(reasons),
        "passed": not reasons,
        "speed": None if texts_per_s is None else speed(texts_per_s),
    }


CANDIDATES = (
    entry("int8-row-wise", flips=8, texts_per_s=406.0, model_bytes=112_000_000),
    entry("int8-per-channel", flips=31, texts_per_s=432.0, model_bytes=111_000_000),
    entry("int8-fused", flips=95, texts_per_s=None, reasons=["4.75 % of answers differ"]),
    entry("fp32"),
)


def document(
    candidates: Sequence[Mapping[str, Any]] = CANDIDATES, **more: object
) -> dict[str, Any]:
    """`gates.json` with those candidates, the first being served and the last fp32."""
    return {
        "exam_rows": 2000,
        "held_out_rows": 3080,
        "objective": "throughput",
        "target": "cpu",
        "machine": "a CPU with 2 cores",
        "lanes": {"count": 2, "threads": 1},
        "max_accuracy_drop_points": 1.0,
        "max_flip_percent": 2.0,
        "max_batch_flip_percent": 0.5,
        "torch_max_logit_difference": 4.1e-6,
        "fp32": candidates[-1],
        "served": candidates[0],
        "candidates": list(candidates),
        "not_tried": [{"name": "openvino", "reason": "not installed"}],
        "notes": ["one row has no label"],
        **more,
    }


def page_of(gates: Mapping[str, Any] | None = None, *, text: str = "fine", labels: int = 3) -> str:
    """The page of *gates*, with one changed row and some flips."""
    row = ChangedRow(
        text=text, text_pair=text, true=(text,), fp32=((text, 0.6),), served=(("other", 0.5),)
    )
    return render_export_report(
        ExportReport(
            title=text,
            document=document() if gates is None else gates,
            changed=[row],
            label_flips=[
                LabelFlips(label=f"{text} {number}", rows=9, lost=1, gained=1)
                for number in range(labels)
            ],
            sensitivity={f"layer {text}": 0.01, "layer 2": 0.002},
            facts={text: {text: text, "nothing": None}},
        )
    )


def logits_of(seed: int, rows: int = ROWS) -> tuple[Logits, Logits]:
    """Two models' logits (rows, LABELS) that disagree on some rows."""
    generator = np.random.default_rng(seed)
    left = generator.normal(size=(rows, LABELS)).astype(np.float32)
    noise = generator.normal(size=(rows, LABELS)).astype(np.float32)
    return left, left + np.float32(0.2) * noise


def exam_rows(rows: int = ROWS) -> list[ExamRow]:
    """Rows that know their number."""
    return [ExamRow(text=str(row), text_pair=None, truth=(row % LABELS,)) for row in range(rows)]


@pytest.mark.parametrize("count", [1, 4, 60])
def test_the_page_loads_nothing(count: int) -> None:
    """No attribute and no style names an address; what SVG refers to is inside the page."""
    many = [entry(f"variant {n}", flips=n, texts_per_s=100.0 + n) for n in range(count - 1)]
    text = page_of(document([*many, entry("fp32")]), text=EVIL)
    loading = ("src", "href", "xlink:href", "data", "srcset", "action", "poster")
    page = Page(text)
    named = [value for _, attrs in page.tags for key, value in attrs.items() if key in loading]

    assert all(value is not None and value.startswith("#") for value in named)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "img", "image"} & {tag for tag, _ in page.tags}


def test_texts_stay_text() -> None:
    """Whatever stands in a text, label, layer, note, name or reason is shown, and never runs."""
    evil = [
        entry(f"{EVIL} {number}", texts_per_s=1.0 + number, reasons=[EVIL]) for number in range(2)
    ]
    gates = document(
        [*evil, entry("fp32")],
        notes=[EVIL], machine=EVIL, not_tried=[{"name": EVIL, "reason": EVIL}],
    )  # fmt: skip
    page = Page(page_of(gates, text=EVIL))

    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") > 15


@pytest.mark.parametrize("count", [0, 3, 59])
def test_every_candidate_has_its_verdict(count: int) -> None:
    """Each name stands in a row of its own with served, passed or refused, and every reason."""
    many = [
        entry(f"variant-{n}", flips=n, texts_per_s=None if n % 2 else 90.0 + n,
              reasons=[f"reason {n}"] if n % 2 else ())
        for n in range(count)
    ]  # fmt: skip
    gates = document([*many, entry("fp32")])
    table = page_of(gates).split("Every variant")[1].split("</table>")[0]
    rows = re.findall(r'<tr class="(\w+)"><td class="n">\d+</td><td class="name">(.*?)<', table)
    states = {name: state for state, name in rows}

    assert len(rows) == count + 1
    for candidate in gates["candidates"]:
        served = candidate["name"] == gates["served"]["name"]
        passed = "passed" if candidate["passed"] else "refused"
        assert states[candidate["name"]] == ("served" if served else passed)
        assert all(f"<small>{reason}</small>" in table for reason in candidate["reasons"])


def test_the_fastest_comes_first() -> None:
    """Rows are sorted by texts/s, those never timed last."""
    names = re.findall(r'<td class="name">(.*?)<', page_of().split("Every variant")[1])

    assert names[:4] == ["int8-per-channel", "int8-row-wise", "fp32", "int8-fused"]


def test_the_verdict_says_what_and_why() -> None:
    """One sentence: objective, speed against fp32, flips with their interval, size."""
    sentence = re.findall(r'class="verdict">(.*?)<', page_of())[0]

    assert sentence.startswith("int8-row-wise is served, chosen for throughput among 3 of 4")
    assert "2.90 times as fast as fp32" in sentence
    assert "0.40 % of its answers differ" in sentence
    assert "26 % of fp32" in sentence


@pytest.mark.parametrize("objective", ["throughput", "latency", "size"])
def test_fp32_alone_has_a_page(objective: str) -> None:
    """With nothing else to serve, fp32 is, and the page says why instead of comparing."""
    text = page_of(document([entry("fp32")], objective=objective))

    assert "nothing else passed every gate" in text
    assert "nothing to compare" in text


def nulled(value: Any) -> Any:
    """*value* with null for every float in it."""
    if isinstance(value, dict):
        return {key: nulled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nulled(item) for item in value]
    return None if isinstance(value, float) else value


def test_null_breaks_nothing() -> None:
    """Numbers that were none, timings that are missing: the page shows a dash and goes on."""
    null, bare = nulled(entry("null")), entry("bare", texts_per_s=None)
    bare |= {"flip_interval": None, "batch_flip_interval": [None, None], "model_bytes": None}
    broken = {**entry("half"), "flip_interval": [None, None], "label_flip_rate": None}
    unasked = {k: v for k, v in bare.items() if k not in ("speed", "calibration_error")}
    for served in (null, bare, broken, unasked):
        text = page_of(document([served, entry("fp32")]))

        assert f"{served['name']} is served" in text
        assert "None" not in Page(text).text
        assert "nan" not in re.sub(r"(?s)<svg.*?</svg>", "", text)


def test_what_is_long_is_cut() -> None:
    """A long text is cut; of a hundred labels forty are shown, and the rest is counted."""
    text = page_of(text="word " * 10_000, labels=100)

    assert len(text) < 300_000
    assert "60 more labels are left out; together they lost 60 rows and gained 60." in text


def test_optional_parts_are_left_out() -> None:
    """Without sensitivities there is no chart; without changed rows the page says so."""
    text = render_export_report(
        ExportReport(
            title="t", document=document(), changed=[], label_flips=[], sensitivity={}, facts={}
        )
    )

    assert "Sensitivity" not in text
    assert text.count("<svg") == 2
    assert "No exam row is answered otherwise" in text


def test_equal_content_gives_equal_bytes() -> None:
    """The page has no clock and no chance in it."""
    assert page_of() == page_of()


@pytest.mark.parametrize("seed", range(5))
def test_flips_are_conserved(seed: int) -> None:
    """Single-label: what one label lost another gained, and each changed row is one of them."""
    fp32, served = logits_of(seed)
    flips = label_flips(fp32, served, NAMES, "single_label")
    changed = changed_rows(exam_rows(), fp32, served, NAMES, "single_label", limit=ROWS)

    assert [flip.label for flip in flips] == NAMES
    assert sum(flip.rows for flip in flips) == ROWS
    assert sum(flip.lost for flip in flips) == sum(flip.gained for flip in flips) == len(changed)
    assert changed


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(5))
def test_changed_rows_are_where_decisions_differ(seed: int, task: Task) -> None:
    """Each row whose decision differs is there once, the largest change of probability first."""
    fp32, served = logits_of(seed)
    differing = (decisions(fp32, task) != decisions(served, task)).any(axis=1)
    changed = changed_rows(exam_rows(), fp32, served, NAMES, task, limit=ROWS)

    assert sorted(int(row.text) for row in changed) == np.flatnonzero(differing).tolist()
    assert changed[:3] == changed_rows(exam_rows(), fp32, served, NAMES, task, limit=3)
    for row in changed:
        assert {name for name, _ in row.fp32} != {name for name, _ in row.served}
        assert row.true == (NAMES[int(row.text) % LABELS],)


@pytest.mark.parametrize("task", TASKS)
def test_equal_decisions_change_no_row(task: Task) -> None:
    """Scores may move; while no decision does, no row is listed and no label flips."""
    fp32, _ = logits_of(0)
    moved = fp32 * np.float32(1.5)

    assert changed_rows(exam_rows(), fp32, moved, NAMES, task) == []
    assert not any(flip.lost or flip.gained for flip in label_flips(fp32, moved, NAMES, task))


def test_infinite_answers_come_first() -> None:
    """A row whose probabilities are no numbers changed most, and can be shown."""
    fp32, served = logits_of(0)
    best = int(fp32[7].argmax())
    served[7] = np.inf
    served[7, best] = -np.inf

    assert changed_rows(exam_rows(), fp32, served, NAMES, "single_label")[0].text == "7"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_no_point_of_the_front_is_beaten(values: list[tuple[int, int]]) -> None:
    """A point is on the front exactly if none is at least as good in both and better in one."""
    points = [
        CandidatePoint(name=str(n), number=n, state="passed", x=(x, x, x), y=(y, y, y))
        for n, (x, y) in enumerate(values)
    ]
    unbeaten = {
        point.name
        for point, (x, y) in zip(points, values, strict=True)
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in values)
    }
    front = pareto_front(points)

    assert {point.name for point in front} == unbeaten
    assert [point.x for point in front] == sorted(point.x for point in front)
