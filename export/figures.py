"""The export page's figures as inline SVG: text stays text, nothing is fetched, equal input equal bytes.

Colours are the page's own variables, so that a figure follows it from light to dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _INK, _GRID, _BAD = "#2f6fb3", "#d9772b", "#2b2f36", "#e3e6ea", "#b23b2f"
_VARIABLES = {_BLUE: "blue", _ORANGE: "orange", _INK: "ink", _GRID: "line", _BAD: "bad"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_MAX_NAMED = 24  # points; beyond them most carry their number in the table instead
_MAX_BARS = 24
_LETTER_POINTS, _LINE_POINTS = 4.7, 9.5  # of the labels, as wide as the widest of our fonts
_GAPS_POINTS = (6, 13, 22, 34, 48, 64, 82)
_LEADER_POINTS = 20  # a label farther away is tied to its point by a line
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_ON_INK, _ON_LINE, _OUTSIDE = 10.0, 1.0, 20.0  # what a label pays for a square point it covers
_PER_POINT = 8.0  # what it pays for being a point farther away
_TICKS_PERCENT = (0, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_CROWDED = 3  # budgets; flips beyond so many need a logarithmic axis
_LOOK: dict[str, dict[str, Any]] = {
    "served": {"zorder": 4, "color": _ORANGE, "marker": "D", "markersize": 7},
    "passed": {"zorder": 3, "color": _BLUE, "marker": "o", "markersize": 5},
    "refused": {"zorder": 3, "color": _BAD, "marker": "o", "markersize": 5, "mfc": "none"},
}

Reach = tuple[float, float, float]
"""Low end, value and high end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePoint:
    """One timed candidate in a plot. number: its row in the table. Less x and more y is better."""

    name: str
    number: int
    state: Literal["served", "passed", "refused"]
    x: Reach
    y: Reach


@contextmanager
def _styled(salt: str) -> Iterator[None]:
    """Our style, for this figure alone; *salt* keeps its ids apart from another figure's."""
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def pareto_front(points: Sequence[CandidatePoint]) -> list[CandidatePoint]:
    """The points that no other beats in x or y without losing in the other; x ascends."""
    front: list[CandidatePoint] = []
    for point in sorted(points, key=lambda point: (point.x[1], -point.y[1])):
        value = (point.x[1], point.y[1])
        if not front or point.y[1] > front[-1].y[1] or value == (front[-1].x[1], front[-1].y[1]):
            front.append(point)
    return front


@_styled("flips")
def flips_figure(points: Sequence[CandidatePoint], budget_percent: float) -> str:
    """Texts a second over flips in percent, with the front and the budget."""
    figure, axes = _canvas(10, 5.0)
    widest = max(*(point.x[1] for point in points), budget_percent)
    right = max(widest, min(max(point.x[2] for point in points), 1.3 * widest), 0.1) * 1.06
    if widest > _CROWDED * max(budget_percent, 0.5):
        axes.set_xscale("symlog", linthresh=max(budget_percent, 0.5), linscale=1.5)
        ticks = [tick for tick in _TICKS_PERCENT if tick <= right]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.axvline(budget_percent, color=_INK, linewidth=1, linestyle=":", label="flip budget")
    axes.set_xlim(-0.02 * min(right, max(3 * budget_percent, 0.5)), right)
    axes.set_xlabel("answers that differ from fp32, %")
    return _scatter(figure, axes, points, pareto_front(points))


@_styled("size")
def size_figure(points: Sequence[CandidatePoint]) -> str:
    """Texts a second over MB, with the front of those that passed."""
    figure, axes = _canvas(10, 4.2)
    axes.set_xlim(0, 1.08 * max(point.x[1] for point in points))
    axes.set_xlabel("model.onnx, MB")
    return _scatter(
        figure, axes, points, pareto_front([point for point in points if point.state != "refused"])
    )


@_styled("sensitivity")
def sensitivity_figure(shares: Mapping[str, float]) -> str:
    """Flips in percent for each layer made int8 alone, the most sensitive 24, highest first."""
    worst = sorted(shares.items(), key=lambda item: -item[1])[:_MAX_BARS]
    figure, axes = _canvas(10, 0.9 + 0.24 * len(worst))
    places = np.arange(len(worst))
    axes.barh(places, [100 * share for _, share in worst], height=0.7, color=_BLUE)
    axes.set_yticks(places, [_short(name, 56) for name, _ in worst])
    axes.set(ylim=(len(worst) - 0.4, -0.6), xlabel="answers that differ from fp32, %")
    axes.set_xlim(0, max(110 * worst[0][1], 0.1))
    axes.grid(visible=False, axis="y")
    for place, (_, share) in enumerate(worst):
        axes.annotate(
            f"{100 * share:.2f}", (100 * share, place), (4, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    return _svg(figure)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Inches at 72 dots, so that a pixel is a point; the page scales it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=72)
    return figure, figure.subplots()


def _scatter(
    figure: Figure, axes: Axes, points: Sequence[CandidatePoint], front: Sequence[CandidatePoint]
) -> str:
    """The points with their reach, the front as steps up to the right edge, names beside them."""
    top = max(point.y[2] for point in points)
    axes.set(ylim=(0, 1.12 * top), ylabel="texts/s")
    if front:
        ends = [*(point.x[1] for point in front[1:]), axes.get_xlim()[1]]
        # Corners of its own, not a drawing style: labels keep off what has corners.
        levels = [
            (x, point.y[1])
            for point, end in zip(front, ends, strict=True)
            for x in (point.x[1], end)
        ]
        axes.plot(*zip(*levels, strict=True), color=_INK, linewidth=1, alpha=0.45, label="front")
    for state, look in _LOOK.items():
        for nth, point in enumerate(point for point in points if point.state == state):
            reach = [[[low], [high]] for low, high in (_errors(point.x), _errors(point.y))]
            drawn = axes.errorbar(
                point.x[1], point.y[1], xerr=reach[0], yerr=reach[1], **look,
                elinewidth=0.8, linestyle="none", label=state if nth == 0 else None,
            )  # fmt: skip
            for bar in drawn.lines[2]:
                bar.set_alpha(0.5)
    figure.legend(loc="outside upper right", ncols=5)
    _name_points(figure, axes, points, front)
    return _svg(figure)


def _errors(reach: Reach) -> tuple[float, float]:
    low, value, high = reach
    return max(0.0, value - low), max(0.0, high - value)


def _name_points(
    figure: Figure, axes: Axes, points: Sequence[CandidatePoint], front: Sequence[CandidatePoint]
) -> None:
    """A label beside each point, where it covers least: each in turn, the weightiest first."""
    figure.draw_without_rendering()  # only now is it known where the axes lie
    crowded = len(points) > _MAX_NAMED
    taken = _obstacles(axes)
    box = axes.get_window_extent()
    for point in sorted(points, key=lambda point: (point.state != "served", point not in front)):
        named = not crowded or point in front or point.state == "served" or point.name == "fp32"
        text = _short(point.name, 32) if named else str(point.number)
        at = axes.transData.transform((point.x[1], point.y[1]))
        options = _places(at, _LETTER_POINTS * len(text))
        rects = np.array([rect for rect, _ in options])
        inside = _overlap(rects, np.array([[*box.min, *box.max]]))[:, 0]
        outside = _area(rects) - inside
        cost = _overlap(rects, taken[:, :4]) @ taken[:, 4] + _OUTSIDE * outside
        cost += _PER_POINT * np.array([gap for _, gap in options])
        chosen, gap = options[int(cost.argmin())]
        taken = np.vstack([taken, [*chosen, _ON_INK]])
        centre = ((chosen[0] + chosen[2]) / 2 - at[0], (chosen[1] + chosen[3]) / 2 - at[1])
        line = {"arrowstyle": "-", "color": _INK, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 0}
        axes.annotate(
            text, (point.x[1], point.y[1]), centre, textcoords="offset points",
            ha="center", va="center", fontsize=8, fontweight="bold" if point.state == "served" else "normal",
            arrowprops={**line, "shrinkB": 4} if gap > _LEADER_POINTS else None, zorder=4,
        ).set_in_layout(False)  # fmt: skip


def _places(at: npt.NDArray[Any], width: float) -> list[tuple[tuple[float, ...], int]]:
    """Where a label of *width* may stand around *at*: (left, bottom, right, top), and how far off."""
    half_width, half_height = width / 2, _LINE_POINTS / 2
    found: list[tuple[tuple[float, ...], int]] = []
    for gap in _GAPS_POINTS:
        for dx, dy in _SIDES:
            x, y = at[0] + dx * (half_width + gap), at[1] + dy * (half_height + gap)
            found.append(((x - half_width, y - half_height, x + half_width, y + half_height), gap))
    return found


def _obstacles(axes: Axes) -> npt.NDArray[np.float64]:
    """What is drawn already, in points: rows of left, bottom, right, top, weight."""
    drawn = [line.get_transform().transform(line.get_xydata()) for line in axes.get_lines()]
    for bars in axes.collections:
        drawn += [bars.get_transform().transform(bar.vertices) for bar in bars.get_paths()]
    rows = []
    for path in drawn:
        if len(path) == 1:  # a marker
            rows.append([*(path[0] - 6), *(path[0] + 6), _ON_INK])
        for start, end in pairwise(path):
            rows.append([*(np.minimum(start, end) - 1), *(np.maximum(start, end) + 1), _ON_LINE])
    return np.array(rows, dtype=float)


def _overlap(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, M): square points that rectangles (N, 4) and (M, 4) share."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:4], right[None, :, 2:4])
    shared: npt.NDArray[Any] = np.prod(np.clip(high - low, 0, None), axis=2)
    return shared


def _area(rects: npt.NDArray[Any]) -> npt.NDArray[Any]:
    area: npt.NDArray[Any] = np.prod(rects[:, 2:] - rects[:, :2], axis=1)
    return area


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone: no prologue, no DOCTYPE, no metadata; they would name addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Inside tags only: what a label says is not ours to change.
    text = re.sub(r"<[^>]+>", lambda tag: _variables(tag.group()), text)
    # Without a size of its own the page's style rules, within the drawing's proportions.
    start, end = text.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end


def _variables(tag: str) -> str:
    """*tag* with our colours as the page's variables."""
    for colour, name in _VARIABLES.items():
        tag = tag.replace(f": {colour}", f": var(--{name})")
    return tag


def _short(name: str, limit: int) -> str:
    """The name on one line; a long one loses its middle: the ends of layer names tell them apart."""
    name = " ".join(name.split())
    half = limit // 2
    return name if len(name) <= limit else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[1 - half :]}"
