"""The page's figures: replicas over time, and what waiting cost against what replicas cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.canvas import INK, OTHERS, OURS, SOFT, canvas, styled, svg

if TYPE_CHECKING:
    from benchmarks.scaling.record import ScalingRecord, ScalingRun
    from benchmarks.scaling.trace import LoadTrace

_OURS_NAME = "ours"


def replicas_figure(record: ScalingRecord, trace: LoadTrace) -> str:
    """Replicas paid for, a line a policy; the shade is the work, in replicas it would keep busy."""
    with styled(f"replicas-{trace.name}"):
        figure, axes = canvas(7.2, 3.4)
        minutes = np.arange(len(trace.load)) / 60
        axes.fill_between(minutes, trace.load, color=SOFT, alpha=0.25, linewidth=0)
        axes.plot([], [], color=SOFT, alpha=0.4, linewidth=6, label="work")
        for place, run in enumerate(record.of(trace)):
            axes.step(
                minutes,
                run.simulated.alive,
                where="post",
                color=_colour(run, place),
                linewidth=2 if run.policy == _OURS_NAME else 1.2,
                label=run.name,
            )
        axes.set(xlabel="minutes", ylabel="replicas", ylim=(0, None), xlim=(0, minutes[-1]))
        figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
        return svg(figure)


def price_figure(record: ScalingRecord, trace: LoadTrace) -> str:
    """p99 wait against replica-hours, a point a policy: further down and left is better."""
    from matplotlib.ticker import NullLocator

    with styled(f"price-{trace.name}"):
        figure, axes = canvas(3.6, 3.4)
        for place, run in enumerate(record.of(trace)):
            found = run.summary()
            across, up = found["replica_s"] / 3600, found["p99_wait_ms"]
            axes.plot(across, up, "o", color=_colour(run, place), markersize=7)
            # Below one and above the next: neighbours do not write over each other.
            axes.annotate(
                run.policy,
                (across, up),
                xytext=(0, -13 if place % 2 else 7),
                textcoords="offset points",
                fontsize=8,
                ha="center",
            )
        busy_h = float(trace.load.sum()) / 3600
        axes.axvline(busy_h, color=INK, linewidth=1, linestyle=":")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.margins(0.3, 0.2)
        axes.set(xlabel="replica-hours; dotted: all busy", ylabel="p99 wait, ms")
        return svg(figure)


def _colour(run: ScalingRun, place: int) -> str:
    return OURS if run.policy == _OURS_NAME else OTHERS[(place - 1) % len(OTHERS)]
