"""`report.html`: one self-contained page on how a checkpoint was made and what it gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from training.figures import accuracy_figure, confusion_figure, loss_figure, reliability_figure
from training.metrics import THRESHOLD, Scores, row_losses, sigmoid, softmax

_TEMPLATE = "report.html.j2"
_HARDEST = 12
_SHOWN_CHARS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class HardRow:
    """A test row the model lost most on. answered: labels with their chance; loss: nats."""

    text: str
    text_pair: str | None
    true: tuple[str, ...]
    answered: tuple[tuple[str, float], ...]
    loss: float


def hardest_rows(
    rows: Sequence[Mapping[str, Any]],
    logits: npt.NDArray[Any],
    truths: npt.NDArray[Any],
    labels: Sequence[str],
) -> list[HardRow]:
    """The rows of highest loss, highest first.

    rows: as `exam.jsonl` has them; logits (N, L); truths (N,) or (N, L).
    """
    losses = row_losses(logits, truths)
    chances = softmax(logits) if truths.ndim == 1 else sigmoid(logits)
    found = []
    for number in np.argsort(-losses, kind="stable")[:_HARDEST].tolist():
        row, chance = rows[number], chances[number]
        single = truths.ndim == 1
        given = [chance.argmax()] if single else np.flatnonzero(chance >= THRESHOLD).tolist()
        found.append(
            HardRow(
                text=_cut(row["text"]),
                text_pair=_cut(row["text_pair"]) if "text_pair" in row else None,
                true=tuple(row["labels"]),
                answered=tuple((labels[int(label)], float(chance[label])) for label in given),
                loss=float(losses[number]),
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """What the page shows. history: (metric, step, value); facts: heading -> name -> value."""

    title: str
    scores: Scores
    history: Sequence[tuple[str, int, float]]
    best_step: int
    hardest: Sequence[HardRow]
    facts: Mapping[str, Mapping[str, object]]


def render_report(content: ReportContent) -> str:
    """The page; everything in it that comes from the data is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files("training").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    history, step = content.history, content.best_step
    losses = _curve(history, "train_loss"), _curve(history, "validation_loss")
    qualities = _curve(history, "validation_accuracy"), _curve(history, "validation_macro_f1")
    return environment.from_string(source).render(
        title=content.title,
        scores=content.scores,
        figures={
            "loss": loss_figure(*losses, step) if history else None,
            "accuracy": accuracy_figure(*qualities, step) if history else None,
            "confusion": confusion_figure(content.scores),
            "reliability": reliability_figure(content.scores.reliability),
        },
        hardest=content.hardest,
        facts=content.facts,
    )


def _curve(history: Sequence[tuple[str, int, float]], name: str) -> list[tuple[int, float]]:
    return [(step, value) for metric, step, value in history if metric == name]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + " \N{HORIZONTAL ELLIPSIS}"
