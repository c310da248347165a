"""How the report draws: inline SVG in the page's own colours; equal input gives equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID, OURS, BAD = "#2b2f36", "#68707c", "#e3e6ea", "#d9772b", "#b23b2f"
# Of the others, in turn: told apart by people who see few colours, and by their labels by all.
OTHERS = ("#2f6fb3", "#3f9183", "#7d6bb0", "#8a6f4d", "#4d7d2f", "#9b5c80", "#5b7083")
_NAMED = {INK: "ink", SOFT: "soft", GRID: "line", OURS: "orange", BAD: "bad"}
_VARIABLES = _NAMED | {colour: f"c{place}" for place, colour in enumerate(OTHERS)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """Our style, for this figure alone; *salt* keeps its ids apart from another figure's."""
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Inches at 72 dots, so that a pixel is a point; the page scales it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=72)
    return figure, figure.subplots()


def svg(figure: Figure) -> str:
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


def spread(places: list[float], gap: float) -> list[float]:
    """*places*, ascending, moved as little as needed to lie *gap* apart."""
    if not places:
        return []
    blocks: list[list[float]] = []  # [sum of wanted first places, count]
    for nth, place in enumerate(places):
        blocks.append([place - nth * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    moved = [total / count for total, count in blocks for _ in range(int(count))]
    return [place + nth * gap for nth, place in enumerate(moved)]


def _variables(tag: str) -> str:
    """*tag* with our colours as the page's variables."""
    for colour, name in _VARIABLES.items():
        tag = tag.replace(f": {colour}", f": var(--{name})")
    return tag
