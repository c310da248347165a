"""The page's figures: memory over time by process, and latency over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.record import percentile
from benchmarks.report.canvas import BAD, INK, OTHERS, OURS, SOFT, canvas, styled, svg

if TYPE_CHECKING:
    from benchmarks.soak.record import SoakRecord

_NAMED = 7  # roles with a line of their own; the rest together would be no line worth reading


def memory_figure(record: SoakRecord) -> str:
    """MB of the largest roles and of all, a line each, from the load's first second on."""
    with styled("memory"):
        figure, axes = canvas(7.2, 3.6)
        whole, *roles = record.series_of_all
        for place, one in enumerate(roles[:_NAMED]):
            minutes = [at_s / 60 for at_s in one.at_s]
            axes.plot(minutes, one.mb, color=OTHERS[place], linewidth=1.2, label=one.name)
        minutes = [at_s / 60 for at_s in whole.at_s]
        axes.plot(minutes, whole.mb, color=OURS, linewidth=2, label="all")
        axes.axvline(record.run.warmup_s / 60, color=INK, linewidth=1, linestyle=":")
        axes.set(
            xlabel="minutes; dotted: the warm-up ends", ylabel="own memory, MB", ylim=(0, None)
        )
        figure.legend(fontsize=8, loc="outside lower center", ncols=4, frameon=False)
        return svg(figure)


def latency_figure(record: SoakRecord) -> str:
    """p50 and p99 of each window; a red dot where one held an error."""
    with styled("latency"):
        figure, axes = canvas(7.2, 3.0)
        windows = [window for window in record.windows if window.latencies_ms]
        minutes = [(window.warmup_s + window.duration_s / 2) / 60 for window in windows]
        for percent, colour in ((99, OURS), (50, SOFT)):
            found = [percentile(window.latencies_ms, percent) for window in windows]
            axes.plot(minutes, found, color=colour, linewidth=1.6, label=f"p{percent}")
        wrong = [at for at, window in zip(minutes, windows, strict=True) if window.errors]
        axes.plot(wrong, [0.0] * len(wrong), "o", color=BAD, markersize=5, clip_on=False)
        axes.set(xlabel="minutes; a red dot: errors", ylabel="ms", ylim=(0, None))
        figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
        return svg(figure)
