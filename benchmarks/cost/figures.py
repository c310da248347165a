"""The page's figure: dollars a million texts over the load, a staircase a type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.canvas import INK, OTHERS, OURS, canvas, styled, svg

if TYPE_CHECKING:
    from benchmarks.cost.record import CostReport, Priced

_POINTS = 1500
_INSTANCES = 40  # of the largest type shown, at the right end


def cost_figure(report: CostReport) -> str:
    """The cheapest CPU and every GPU whose rate is known; dotted: from there on a GPU is cheaper."""
    shown = [row for row in (report.cheapest_cpu, *_gpus(report)) if row is not None]
    with styled("cost"):
        figure, axes = canvas(7.2, 3.8)
        loads = _loads(report, shown)
        for place, row in enumerate(shown):
            fleet = row.fleet
            assert fleet is not None, "a row without a rate is shown; this is a bug"
            colour = OURS if row is report.cheapest_cpu else OTHERS[place % len(OTHERS)]
            dollars = [fleet.usd_per_million(load) for load in loads]
            axes.plot(loads, dollars, color=colour, linewidth=1.6, label=row.name)
            if found := report.break_even(row):
                axes.axvline(found.always_per_s, color=INK, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set(xlabel="texts a second", ylabel="$ a million texts")
        figure.legend(fontsize=8, loc="outside lower center", ncols=4, frameon=False)
        return svg(figure)


def _gpus(report: CostReport) -> list[Priced]:
    return [row for row in report.rows if row.fleet and row.capacity.instance.gpu]


def _loads(report: CostReport, shown: list[Priced]) -> list[float]:
    """From a twentieth of the smallest instance to some of the largest, past every break-even."""
    each = [row.fleet.each_per_s for row in shown if row.fleet]
    ends = [found.always_per_s for row in shown if (found := report.break_even(row))]
    last = max([*(2 * end for end in ends), _INSTANCES * min(each), 3 * max(each)])
    return [float(load) for load in np.geomspace(min(each) / 20, last, _POINTS)]
