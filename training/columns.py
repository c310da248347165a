"""Which columns hold text and labels, and what kind of labels: certain, or a question to the user.

Looks at a sample of rows only. Pure: rows in, a `Plan` or an error that lists the columns out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training.errors import ColumnError, LabelError, SourceError

Row = dict[str, Any]
LabelKind = Literal["one", "flags", "list", "delimited"]
_TEXT_NAMES = (
    "text", "review", "review_text", "reviewtext", "review text", "sentence", "content", "comment",
    "body", "utterance", "document", "message", "tweet",
)  # fmt: skip
_PAIR_NAMES = (
    ("text", "text_pair"), ("sentence1", "sentence2"), ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b"),
    ("text1", "text2"),
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "category", "class", "intent", "intents", "rating", "stars", "sentiment",
    "target",
)  # fmt: skip
_DELIMITERS = (",", ";", "|")
_FLAGS = {"0", "1", "", "true", "false", "0.0", "1.0"}
_CERTAIN_SHARE = 0.8
_MOST_CLASSES = 20  # of non-integer numbers; beyond it they are a quantity, not classes
_EXAMPLE_CHARS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPlan:
    """text: one column, or two for a pair. kind: how `label` columns hold labels."""

    text: tuple[str, ...]
    label: tuple[str, ...]
    kind: LabelKind
    delimiter: str | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.kind != "one"


def plan_columns(
    sample: Sequence[Row],
    *,
    text: Sequence[str],
    label: Sequence[str],
    delimiter: str | None,
) -> ColumnPlan:
    """The plan for rows like *sample*; what was asked for is taken, the rest inferred if certain.

    Raises `ColumnError` with the list of columns when it is not certain, `LabelError` for labels
    that are a quantity, `SourceError` for no rows.
    """
    if not sample:
        raise SourceError("The source holds no rows.")
    names = list(dict.fromkeys(name for row in sample for name in row))
    for name in (*text, *label):
        if name not in names:
            raise ColumnError(f"There is no column {name!r}. {describe(sample, names)}")
    if len(text) > 2:  # noqa: PLR2004 - a text, or a pair
        raise ColumnError(f"{len(text)} text columns were given; give one, or two for a pair.")
    text_columns = tuple(text) or _infer_text(sample, [n for n in names if n not in label])
    label_columns = tuple(label) or _infer_label([n for n in names if n not in text_columns])
    if not text_columns or not label_columns:
        missing = "--text-column" if not text_columns else "--label-column"
        raise ColumnError(
            f"Which column it is cannot be told for certain; say it with {missing}."
            f" {describe(sample, names)}"
        )
    if both := set(text_columns) & set(label_columns):
        raise ColumnError(f"Column {both.pop()!r} cannot be both text and label.")
    kind, delimiter = _label_kind(sample, label_columns, delimiter)
    return ColumnPlan(text=text_columns, label=label_columns, kind=kind, delimiter=delimiter)


def row_labels(row: Row, plan: ColumnPlan) -> tuple[str, ...] | None:
    """The label names of one row, distinct, in order of appearance; None when it has no label.

    A multi-label row without labels is (), a single-label row without one is None.
    """
    if plan.kind == "flags":
        return tuple(name for name in plan.label if label_name(row.get(name)) in ("1", "true"))
    value = row.get(plan.label[0])
    if plan.kind == "list":
        items = value if isinstance(value, list) else [] if value in (None, "") else [value]
        return tuple(dict.fromkeys(filter(None, map(label_name, items))))
    name = label_name(value)
    if plan.kind == "delimited":
        parts = (part.strip() for part in name.split(plan.delimiter or ","))
        return tuple(dict.fromkeys(filter(None, parts)))
    return (name,) if name else None


def label_name(value: Any) -> str:
    """A label as text: 4, 4.0 and "4" are one label; None is ""."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else "" if value != value else str(value)  # noqa: PLR0124 - NaN
    return str(value).strip()


def describe(sample: Sequence[Row], names: Sequence[str]) -> str:
    """One line on the columns: name, how many distinct values the sample has, one of them."""
    parts = []
    for name in names:
        values = [str(row[name]) for row in sample if row.get(name) not in (None, "")]
        shown = values[0].replace("\n", " ")[:_EXAMPLE_CHARS] if values else "empty"
        parts.append(f"{name!r} ({len(set(values))} distinct, e.g. {shown!r})")
    return "Columns: " + ", ".join(parts) + "."


def _infer_text(sample: Sequence[Row], names: Sequence[str]) -> tuple[str, ...]:
    lower = {name.lower(): name for name in names}
    for first, second in _PAIR_NAMES:
        if first in lower and second in lower:
            return lower[first], lower[second]
    known = [lower[name] for name in _TEXT_NAMES if name in lower]
    if len(known) == 1:
        return (known[0],)
    prose = [name for name in names if _is_prose(sample, name)]
    return (prose[0],) if len(prose) == 1 and not known else ()


def _infer_label(names: Sequence[str]) -> tuple[str, ...]:
    known = [name for name in names if name.lower() in _LABEL_NAMES]
    if len(known) == 1:
        return (known[0],)
    return (names[0],) if len(names) == 1 else ()


def _is_prose(sample: Sequence[Row], name: str) -> bool:
    values = [row.get(name) for row in sample]
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if len(texts) < _CERTAIN_SHARE * len(values):
        return False
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    return words >= 3 and len(set(texts)) > len(texts) / 2  # noqa: PLR2004 - ids and names are shorter


def _label_kind(
    sample: Sequence[Row], label: tuple[str, ...], delimiter: str | None
) -> tuple[LabelKind, str | None]:
    if len(label) > 1:
        for name in label:
            other = {label_name(row.get(name)) for row in sample} - _FLAGS
            if other:
                raise LabelError(
                    f"Column {name!r} holds {min(other)!r}; several label columns must hold"
                    " 0 or 1 each."
                )
        return "flags", None
    values = [row.get(label[0]) for row in sample]
    if any(isinstance(value, list) for value in values):
        return "list", None
    names = [name for name in map(label_name, values) if name]
    if delimiter is not None:
        return "delimited", delimiter
    _refuse_quantities(label[0], names)
    found = next((d for d in _DELIMITERS if _splits_well(names, d)), None)
    return ("delimited", found) if found else ("one", None)


def _splits_well(names: Sequence[str], delimiter: str) -> bool:
    """Whether the parts of delimited values are, mostly, values of their own elsewhere."""
    compound = [name for name in names if delimiter in name]
    if not compound:
        return False
    alone = {name for name in names if delimiter not in name}
    parts = Counter(part.strip() for name in compound for part in name.split(delimiter))
    return sum(n for part, n in parts.items() if part in alone) >= _CERTAIN_SHARE * parts.total()


def _refuse_quantities(column: str, names: Sequence[str]) -> None:
    fractions = set()
    for name in names:
        try:
            number = float(name)
        except ValueError:
            return
        if not number.is_integer():
            fractions.add(name)
    if len(fractions) > _MOST_CLASSES:
        raise LabelError(
            f"Column {column!r} holds quantities like {min(fractions)}, not classes; regression"
            " is not supported: choose another --label-column."
        )
