"""What a canonicaliser changes on the exam: few enough answers, or no package has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from export.answers import Answers, answer_exam
from export.errors import CanonicalizerRefused
from export.exam import Bools, Exam
from export.gates import decisions, judge_answers, over
from export.judged import Judged
from export.options import ExportOptions
from serving.canonical import BUILT_IN, open_canonicalizer
from serving.engine import Engine, TextTokenizer
from serving.errors import EngineFailed
from serving.lanes import Lanes

_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """The served variant with the canonicaliser *path* beside itself without; shares are 0..1.

    rows_changed: exam rows with another form; rows_read_otherwise: those whose tokens differ, too.
    label_flip_rate: of all rows, those answered otherwise; flip_interval: 95 %.
    """

    path: str
    exam_rows: int
    rows_changed: int
    rows_read_otherwise: int
    label_flip_rate: float
    flip_interval: tuple[float, float]
    accuracy: float
    accuracy_without: float
    accuracy_change: float

    def beside(self, judged: Judged) -> Judged:
        """*judged*, with these numbers in its `gates.json` and a note for its readers."""
        facts = {**judged.facts, "canonicalizer": asdict(self)}
        return replace(judged, facts=facts, notes=(*judged.notes, self.note()))

    def note(self) -> str:
        """What a reader should know beside the other numbers."""
        low, high = (100 * share for share in self.flip_interval)
        return (
            f"texts are read as {self.path} makes them: {self.rows_read_otherwise} of"
            f" {self.exam_rows} exam rows are read otherwise, {100 * self.label_flip_rate:.2f} % of"
            f" answers differ (95 %: {low:.2f} to {high:.2f} %), accuracy is {self.accuracy:.4f}"
            f" instead of {self.accuracy_without:.4f}; all other numbers are of texts as they came"
        )


def reproducible(path: str | None) -> bool:
    """Whether what *path* does is known by its name: other people's code may change under it."""
    return path is None or path in BUILT_IN


def check_forms(path: str | None, exam: Exam) -> None:
    """Make the form of every text of *exam*, and its form again.

    Raises `PackageError` when *path* names nothing, and `CanonicalizerRefused` when the function
    fails on a text, or a form is not its own form: answers would depend on how often it was applied.
    """
    canonicalizer = open_canonicalizer(path, allow_code=path)
    if canonicalizer is None:
        return
    parts = [part for row in exam.rows for part in (row.text, row.text_pair) if part is not None]
    try:
        forms = canonicalizer.forms(parts)
        again = canonicalizer.forms(forms)
    except EngineFailed as error:
        raise CanonicalizerRefused(f"On the exam, {error}") from error
    for part, once, twice in zip(parts, forms, again, strict=True):
        if once != twice:
            raise CanonicalizerRefused(
                f"{path} is refused: applied twice it does not give what it gives once, for instance"
                f" {_cut(part)} becomes {_cut(once)}, which becomes {_cut(twice)}."
            )


def weigh(
    engine: Engine, exam: Exam, without: Answers, options: ExportOptions, lanes: Lanes
) -> tuple[Answers, Likeness]:
    """The answers of *engine*, which has a canonicaliser, and how like those *without* it they are.

    Raises `CanonicalizerRefused` when more answers differ, or more accuracy is lost, than may.
    """
    config, rows = engine.package.config, exam.rows[: len(without.alone)]
    assert config.canonicalizer, "an engine without a canonicaliser; this is a bug"
    texts = [row.text for row in rows]
    pairs = [row.text_pair for row in rows]
    plain = TextTokenizer(engine.package.tokenizer_path, max_length=config.max_length)
    before, after = plain.encode(texts, pairs), engine.tokenizer.encode(texts, pairs)
    differing = [place for place, encoding in enumerate(after) if encoding != before[place]]
    alone = without.alone.copy()
    if differing:
        asked = [after[place] for place in differing]
        streams, pad = lanes.count, config.pad_token_id
        alone[differing] = answer_exam(
            engine.session, asked, pad_token_id=pad, streams=streams, mixed_rows=0
        ).alone
    answers = replace(without, alone=alone, mixed=alone)
    name = config.canonicalizer
    found = judge_answers(name, answers, fp32=without, exam=exam, options=options, model_bytes=0)
    likeness = Likeness(
        path=name,
        exam_rows=found.exam_rows,
        rows_changed=_changed(engine.tokenizer, texts, pairs),
        rows_read_otherwise=len(differing),
        label_flip_rate=found.label_flip_rate,
        flip_interval=found.flip_interval,
        accuracy=found.accuracy,
        accuracy_without=found.accuracy - found.accuracy_change,
        accuracy_change=found.accuracy_change,
    )
    _refuse(likeness, engine, exam, (without, answers), options)
    return answers, likeness


def _changed(tokenizer: TextTokenizer, texts: Sequence[str], pairs: Sequence[str | None]) -> int:
    seconds = [pair or "" for pair in pairs]
    forms = zip(tokenizer.canonical(texts), tokenizer.canonical(seconds), strict=True)
    return sum(
        form != given for form, given in zip(forms, zip(texts, seconds, strict=True), strict=True)
    )


def _refuse(
    found: Likeness,
    engine: Engine,
    exam: Exam,
    sheets: tuple[Answers, Answers],
    options: ExportOptions,
) -> None:
    reasons = []
    if over(found.label_flip_rate, options.max_flip_percent):
        reasons.append(
            f"{100 * found.label_flip_rate:.2f} % of {found.exam_rows} answers differ with it, more"
            f" than --max-flips {options.max_flip_percent:g} %"
        )
    if over(-found.accuracy_change, options.max_accuracy_drop_points):
        reasons.append(
            f"accuracy falls by {-100 * found.accuracy_change:.2f} points, more than"
            f" --max-accuracy-drop {options.max_accuracy_drop_points:g}"
        )
    if reasons:
        raise CanonicalizerRefused(
            f"{found.path} is refused: {' and '.join(reasons)}; for instance"
            f" {_example(engine, exam, sheets)}. Leave it out, or export with a wider budget."
        )


def _example(engine: Engine, exam: Exam, sheets: tuple[Answers, Answers]) -> str:
    """An exam row that is answered otherwise, and how."""
    config = engine.package.config
    before, after = (decisions(sheet.alone, config.task) for sheet in sheets)
    place = int(np.flatnonzero((before != after).any(axis=1))[0])
    row = exam.rows[place]
    given = [row.text] if row.text_pair is None else [row.text, row.text_pair]
    forms = engine.tokenizer.canonical(given)
    return (
        f"{' | '.join(map(_cut, given))} is read as {' | '.join(map(_cut, forms))}, and"
        f" {_names(before[place], config.labels)} becomes {_names(after[place], config.labels)}"
    )


def _names(given: Bools, labels: Sequence[str]) -> str:
    return ", ".join(labels[place] for place in np.flatnonzero(given).tolist()) or "no label"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")
