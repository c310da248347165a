"""The report's figures: rate against latency, throughput, accuracy beside speed, tails.

Names stand at their lines and bars; there is no legend to look up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.record import percentile
from benchmarks.report.canvas import BAD, INK, OTHERS, OURS, SOFT, canvas, spread, styled, svg
from benchmarks.report.findings import TAILS, Curve, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 6.6  # inches
_LABEL_POINTS, _LETTER_POINTS = 11.5, 5.2  # of the names, as wide as the widest of our fonts
_BAR_HEIGHT = 0.56


def colours(systems: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    """Ours is orange; the others keep one colour through all figures of a page."""
    others = [system for system in systems if system not in ours]
    found = {system: OTHERS[place % len(OTHERS)] for place, system in enumerate(others)}
    return {**found, **dict.fromkeys(ours, OURS)}


def rate_figure(curves: Sequence[Curve], palette: Mapping[str, str], salt: str) -> str:
    """Latency over the rate asked for; on the goal's line a mark at each system's highest rate."""
    goal_ms, percent = curves[0].goal_ms, curves[0].percent
    with styled(salt):
        figure, axes = canvas(_WIDTH, 4.0)
        axes.set_yscale("log")
        axes.axhline(goal_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ends = [_draw_curve(axes, curve, palette[curve.system]) for curve in curves]
        axes.set(xlim=(0, 1.25 * max(x for x, _, _ in ends)), xlabel="requests/s asked for")
        axes.set_ylabel(f"p{percent:g}, ms")
        _plain_ticks(axes)
        axes.annotate(
            f"goal {goal_ms:g} ms", (1, goal_ms), (-2, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", color=INK,
        )  # fmt: skip
        _name_ends(axes, ends, palette)
        return svg(figure)


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> tuple[float, float, str]:
    """The line, full dots where the goal held, empty ones where not; returns its end and name."""
    points = curve.points()
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    axes.plot(xs, ys, color=colour, linewidth=2 if curve.ours else 1.2, zorder=2)
    for x, y, held in points:
        fill = colour if held else "none"
        axes.plot(x, y, "o", color=colour, mfc=fill, markersize=4, zorder=3)
    if highest := curve.rate:
        axes.plot(highest, curve.goal_ms, "v", color=colour, markersize=7, zorder=4)
    if curve.knee_per_s:
        axes.axvline(curve.knee_per_s, color=colour, linewidth=1, linestyle=":")
    return xs[-1], ys[-1], curve.system


def bars_figure(found: Mapping[str, Finding], palette: Mapping[str, str], salt: str) -> str:
    """Texts/s by name, in order: the bar is the median, the dots are the rounds, red the ceiling."""
    findings = list(found.values())
    with styled(salt):
        figure, axes = canvas(_WIDTH, 0.75 + 0.34 * len(findings))
        for place, finding in enumerate(findings):
            rate = finding.rate or 0.0
            axes.barh(
                place,
                rate,
                height=_BAR_HEIGHT,
                color=palette[finding.system],
                alpha=0.85,
                linewidth=0,
            )
            dots = finding.rates if len(finding.rates) > 1 else ()
            axes.plot(dots, [place] * len(dots), "o", color=INK, markersize=3, alpha=0.7)
            if top := finding.ceiling_per_s:
                ends = [place - _BAR_HEIGHT / 2 - 0.1, place + _BAR_HEIGHT / 2 + 0.1]
                axes.plot([top, top], ends, color=BAD, linewidth=1.6)
            axes.annotate(
                f"{rate:,.0f}", (max(*finding.rates, rate), place), (7, 0),
                textcoords="offset points", va="center",
                fontweight="bold" if finding.ours else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(findings)), [_short(name) for name in found])
        axes.tick_params(axis="y", labelcolor=INK)
        most = max(max(*finding.rates, finding.ceiling_per_s or 0.0) for finding in findings)
        axes.set(ylim=(len(findings) - 0.4, -0.6), xlim=(0, 1.12 * most), xlabel="texts/s")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        return svg(figure)


def agreement_figure(found: Mapping[str, Finding], palette: Mapping[str, str], salt: str) -> str:
    """The share of texts that get the label of fp32, over texts/s: up and right is better."""
    points = [
        (finding.rate or 0.0, 100 * finding.agreement.share, name)
        for name, finding in found.items()
        if finding.agreement
    ]
    with styled(salt):
        figure, axes = canvas(_WIDTH, 3.0)
        for x, y, name in points:
            finding = found[name]
            size = 8 if finding.ours else 6
            axes.plot(x, y, "o", color=palette[finding.system], markersize=size)
            # Slanted, since all may lie on one level.
            axes.annotate(
                _short(name), (x, y), (3, 6), textcoords="offset points", rotation=30,
                color=palette[finding.system], fontweight="bold" if finding.ours else "normal",
            ).set_in_layout(False)  # fmt: skip
        axes.set(xlim=(0, 1.2 * max(x for x, _, _ in points)), xlabel="texts/s")
        low = min(min(y for _, y, _ in points) - 1, 96)
        axes.set(ylim=(low, 100 + 0.35 * (100 - low)), ylabel="same label as fp32, %")
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 100])  # noqa: PLR2004 - per cent
        return svg(figure)


def tail_figure(found: Mapping[str, Finding], palette: Mapping[str, str], salt: str) -> str:
    """Latency by percentile, the tail drawn out: each step to the right is ten times rarer."""
    with styled(salt):
        figure, axes = canvas(_WIDTH, 3.6)
        axes.set(xscale="log", yscale="log")
        ends: list[tuple[float, float, str]] = []
        for finding in found.values():
            latencies_ms = sorted(finding.latencies_ms)
            points = [(100 / (100 - p), percentile(latencies_ms, p)) for p in _drawn(latencies_ms)]
            xs, ys = zip(*points, strict=True)
            width = 2.0 if finding.ours else 1.2
            axes.plot(xs, ys, color=palette[finding.system], linewidth=width)
            ends.append((xs[-1], ys[-1], finding.system))
        axes.set_xticks([100 / (100 - p) for p in TAILS], [f"p{p:g}" for p in TAILS])
        axes.set_xticks([], minor=True)
        axes.set(xlim=(1.6, 6000), ylabel="latency, ms")
        _plain_ticks(axes)
        _name_ends(axes, ends, palette)
        return svg(figure)


def _drawn(latencies_ms: Sequence[float]) -> list[float]:
    """Percentiles from 40 up to where three samples are left beyond, evenly in rarity."""
    last = min(max(len(latencies_ms) / 3, 2.0), 1000.0)
    first = 100 / 60
    steps = 60
    rarities = [first * (last / first) ** (step / steps) for step in range(steps + 1)]
    return [100 - 100 / rarity for rarity in rarities]


def _name_ends(
    axes: Axes, ends: Sequence[tuple[float, float, str]], palette: Mapping[str, str]
) -> None:
    """Each name right of its point, moved up or down where two would overlap."""
    figure: Any = axes.figure
    figure.draw_without_rendering()  # only now is it known where the axes lie
    placed: list[tuple[float, float, float, float, str]] = []
    for x, y, name in ends:
        across, height = axes.transData.transform((x, y))
        placed.append((float(across), float(height), x, y, name))
    for cluster in _clusters(placed):
        moved = spread([height for _, height, *_ in cluster], _LABEL_POINTS)
        for (_, height, x, y, name), target in zip(cluster, moved, strict=True):
            axes.annotate(
                name, (x, y), (8, target - height), textcoords="offset points", va="center",
                color=palette[name], fontweight="bold" if palette[name] == OURS else "normal",
                annotation_clip=False,
            ).set_in_layout(False)  # fmt: skip


def _clusters(
    placed: Sequence[tuple[float, float, float, float, str]],
) -> list[list[tuple[float, float, float, float, str]]]:
    """Names that share some width, from low to high; the others cannot be in each other's way."""
    found: list[list[tuple[float, float, float, float, str]]] = []
    reach = float("-inf")
    for one in sorted(placed):
        if one[0] > reach:
            found.append([])
        found[-1].append(one)
        reach = max(reach, one[0] + 8 + _LETTER_POINTS * len(one[-1]))
    return [sorted(cluster, key=lambda one: one[1]) for cluster in found]


def _short(name: str, limit: int = 44) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10 ... and not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelcolor=SOFT)
