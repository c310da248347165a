"""The report's figures as inline SVG: text stays text, nothing is fetched, equal input equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from training.metrics import ReliabilityBin, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _INK, _GRID = "#2f6fb3", "#d9772b", "#2b2f36", "#e3e6ea"
_MAX_NAMED = 40  # labels; beyond them names would overlap
_MAX_NUMBERED = 15
_DARK = 0.55  # a cell from which white is easier to read
_LEVEL_CHARS = 3  # names up to this long need not be slanted
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _INK,
    "text.parse_math": False,  # a label may hold dollar signs
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}

Curve = Sequence[tuple[int, float]]


@contextmanager
def _styled(salt: str) -> Iterator[None]:
    """Our style, for this figure alone; *salt* keeps its ids apart from another figure's."""
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


@_styled("loss")
def loss_figure(train: Curve, validation: Curve, best_step: int) -> str:
    """Loss by step, training and validation, with the step whose weights were kept."""
    figure, axes = _canvas(6.4, 3.4)
    _line(axes, train, "training", _BLUE, marker="")
    _line(axes, validation, "validation", _ORANGE, marker="o")
    return _over_steps(figure, axes, best_step, "loss")


@_styled("accuracy")
def accuracy_figure(accuracy: Curve, macro_f1: Curve, best_step: int) -> str:
    """Validation accuracy and macro-F1 by step."""
    figure, axes = _canvas(6.4, 3.4)
    _line(axes, accuracy, "accuracy", _BLUE, marker="o")
    _line(axes, macro_f1, "macro-F1", _ORANGE, marker="o")
    axes.set_ylim(0, 1)
    return _over_steps(figure, axes, best_step, "on the validation part")


@_styled("confusion")
def confusion_figure(scores: Scores) -> str:
    """Truths by answers, shaded by the share of each true label; empty for multi-label."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    if scores.confusion is None:
        return ""
    counts = np.asarray(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.argwhere(counts).tolist()
    side = float(np.clip(2.8 + 0.5 * len(counts), 5.2, 11.0))
    figure, axes = _canvas(side, side)
    axes.grid(visible=False)
    # Patches of what is not zero: an image would be a blurred bitmap, all 77 x 77 a megabyte.
    patches = [Rectangle((column, row), 1, 1) for row, column in cells]
    squares = PatchCollection(patches, cmap="Blues", edgecolor="white", linewidth=0.5)
    squares.set_array(np.array([shares[row, column] for row, column in cells]))
    squares.set_clim(0, 1)
    axes.add_collection(squares)
    axes.set(xlim=(0, len(counts)), ylim=(len(counts), 0), aspect="equal")
    _name_cells(axes, [_short(score.label) for score in scores.per_label])
    if len(counts) <= _MAX_NUMBERED:
        for row, column in cells:
            colour = "white" if shares[row, column] > _DARK else _INK
            place = (column + 0.5, row + 0.5)
            axes.text(*place, str(counts[row, column]), ha="center", va="center", color=colour)
    return _svg(figure)


@_styled("reliability")
def reliability_figure(bins: Sequence[ReliabilityBin]) -> str:
    """How often answers of a confidence are right, and how many there are of it."""
    figure, axes = _canvas(6.4, 4.8)
    filled = [entry for entry in bins if entry.count]
    total = sum(entry.count for entry in filled)
    width = bins[0].high - bins[0].low
    centres = [(entry.low + entry.high) / 2 for entry in filled]
    right = [entry.accuracy for entry in filled]
    shares = [entry.count / total for entry in filled]
    axes.bar(centres, right, width=width * 0.92, color=_BLUE, alpha=0.85, label="right")
    axes.bar(centres, shares, width=width * 0.35, color=_ORANGE, label="share of answers")
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=":", label="perfect")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
    axes.legend(loc="upper left")
    return _svg(figure)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Inches at 72 dots; the page scales it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _line(axes: Axes, curve: Curve, label: str, colour: str, *, marker: str) -> None:
    if curve:
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, color=colour, marker=marker, markersize=4, label=label)


def _over_steps(figure: Figure, axes: Axes, best_step: int, ylabel: str) -> str:
    axes.axvline(best_step, color=_INK, linewidth=1, linestyle=":", label="weights kept")
    axes.set(xlabel="step", ylabel=ylabel)
    axes.legend()
    return _svg(figure)


def _name_cells(axes: Axes, names: Sequence[str]) -> None:
    """The labels along both axes, or where to find them when they are too many."""
    if len(names) > _MAX_NAMED:
        axes.set(xticks=[], yticks=[])
        axes.set(xlabel="answered, in the order of the table", ylabel="true, in the same order")
        return
    centres = np.arange(len(names)) + 0.5
    slanted = max(map(len, names)) > _LEVEL_CHARS
    axes.set_xticks(
        centres, names, rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_yticks(centres, names)
    axes.set(xlabel="answered", ylabel="true")


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone: no prologue, no DOCTYPE, no metadata; they would name addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Without a size of its own the page's style rules, within the drawing's proportions.
    start, end = text.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end


def _short(label: str, limit: int = 24) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
