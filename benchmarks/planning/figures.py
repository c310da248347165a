"""The page's figures as inline SVG: text stays text, nothing is fetched, equal input equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.planning.record import OURS
from benchmarks.planning.tables import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.planning.record import PlannerRecord, PlannerRun

_INK, _SOFT, _GRID = "#2b2f36", "#68707c", "#e3e6ea"
# Ours stands out; the others by hues that also differ in lightness.
_COLOURS = ("#2f6fb3", "#d9772b", "#5b9c4a", "#8a63b0", "#c2487a", "#7d8590")
_MARKERS = ("o", "s", "^", "D", "v", "P")
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
    "text.parse_math": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_LOAD_SHOWN = 0.8
_PARTS = 10


@contextmanager
def _styled(salt: str) -> Iterator[None]:
    """Our style, for this figure alone; *salt* keeps its ids apart from another figure's."""
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def latency_figure(record: PlannerRecord, workload: str) -> str:
    """p99 latency by load, a line a policy; where a line climbs steeply, the policy is overrun."""
    with _styled(f"latency-{workload}"):
        figure, axes = _canvas()
        for place, (policy, runs) in enumerate(_by_policy(record.of(workload, "open"))):
            points = [(run.share, record.summary(run)["p99_ms"]) for run in runs]
            _line(axes, points, policy, place)
        _in_decades(axes)
        axes.axvline(1.0, color=_SOFT, linewidth=1, linestyle=":")
        axes.set(xlabel="load, as a share of the offline ceiling", ylabel="p99 latency, ms")
        axes.set_xticks(sorted({run.share for run in record.of(workload, "open") if run.share}))
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.2f}")
        figure.legend(fontsize=8, loc="outside lower center", ncols=3)
        return _svg(figure)


def saturation_figure(record: PlannerRecord, workload: str) -> str:
    """Texts/s with callers that never pause, a bar a policy, against the offline ceiling."""
    with _styled(f"saturation-{workload}"):
        figure, axes = _canvas()
        runs = record.of(workload, "closed")
        rates = [record.summary(run)["texts_per_s"] for run in runs]
        ceiling = record.offline_texts_per_s[workload]
        places = range(len(runs))
        axes.barh(places, rates, height=0.66, color=_COLOURS[: len(runs)])
        for place, rate in zip(places, rates, strict=True):
            axes.text(rate, place, f"{rate:,.0f} ", ha="right", va="center", color="white")
        axes.axvline(ceiling, color=_INK, linewidth=1, linestyle=":")
        axes.text(
            ceiling,
            -0.62,
            f"offline {ceiling:,.0f} ",
            ha="right",
            va="center",
            fontsize=8.5,
            color=_SOFT,
        )
        axes.set_yticks(list(places), [named(run) for run in runs])
        axes.set(xlim=(0, ceiling * 1.06), ylim=(len(runs) - 0.4, -0.9), xlabel="texts/s")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def length_figure(record: PlannerRecord, workload: str) -> str:
    """p99 of the queue time by length, near 80 % load: ten points a policy, a tenth of texts each."""
    with _styled(f"length-{workload}"):
        figure, axes = _canvas()
        share = shown_share(record, workload)
        for place, run in enumerate(record.of(workload, "open", share)):
            parts = record.queue_by_length(run, _PARTS)
            # A log scale has no 0: who hardly waits is shown at 0.1 ms.
            points = [(tenth, max(ms, 0.1)) for tenth, (_, ms) in enumerate(parts, 1)]
            _line(axes, points, run.policy, place)
        axes.set_xticks(range(1, len(parts) + 1), [f"{tokens:.0f}" for tokens, _ in parts])
        _in_decades(axes)
        axes.set(
            xlabel="tokens: the median of each tenth of the texts", ylabel="p99 queue time, ms"
        )
        figure.legend(fontsize=8, loc="outside lower center", ncols=3)
        return _svg(figure)


def shown_share(record: PlannerRecord, workload: str) -> float:
    """The share of the ceiling whose queue times are shown: the one next to 80 %."""
    shares = {run.share for run in record.of(workload, "open") if run.share}
    return min(shares, key=lambda share: abs(share - _LOAD_SHOWN))


def _by_policy(runs: Sequence[PlannerRun]) -> list[tuple[str, list[PlannerRun]]]:
    policies = dict.fromkeys(run.policy for run in runs)
    return [(policy, [run for run in runs if run.policy == policy]) for policy in policies]


def _line(axes: Axes, points: Sequence[tuple[float | None, float]], label: str, place: int) -> None:
    across, up = zip(*points, strict=True)
    ours = label == OURS
    axes.plot(
        across,
        up,
        color=_COLOURS[place],
        marker=_MARKERS[place],
        markersize=5 if ours else 4,
        linewidth=2.6 if ours else 1.4,
        zorder=3 if ours else 2,
        label=label,
    )


def _in_decades(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _canvas() -> tuple[Figure, Axes]:
    """Inches at 72 dots, about as large as the page shows it, so that its letters are the page's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone: no prologue, no DOCTYPE, no metadata; they would name addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Without a size of its own the page's style rules, within the drawing's proportions.
    start, end = text.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end
