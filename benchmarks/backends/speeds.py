"""What one round of one variant showed, and how fast a variant is on a workload. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.backends.measures import Cells, Weights, best_batch, ms_a_call, texts_per_s
from benchmarks.backends.variant import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRun:
    """One round of one variant on one layout, in a process of its own.

    samples_ms: (batch, length) -> every run, on every lane. load_s: to the first answer.
    """

    variant: str
    layout: Layout
    round: int
    samples_ms: Mapping[tuple[int, int], Sequence[float]]
    load_s: float
    peak_rss_bytes: int

    @classmethod
    def of(cls, variant: str, layout: Layout, round_: int, seen: Mapping[str, Any]) -> GridRun:
        """What `worker` saw."""
        return cls(
            variant=variant,
            layout=layout,
            round=round_,
            samples_ms={(batch, length): tuple(ms) for batch, length, ms in seen["cells"]},
            load_s=seen["load_s"],
            peak_rss_bytes=seen["peak_rss_bytes"],
        )

    @property
    def cells(self) -> Cells:
        """The median of each cell."""
        return {cell: statistics.median(ms) for cell, ms in self.samples_ms.items()}

    def document(self) -> dict[str, Any]:
        """All of it; samples as [batch, length, [ms, ...]] rows."""
        return {
            "variant": self.variant,
            "layout": asdict(self.layout),
            "round": self.round,
            "samples_ms": [
                [batch, length, list(ms)] for (batch, length), ms in self.samples_ms.items()
            ],
            "load_s": self.load_s,
            "peak_rss_bytes": self.peak_rss_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpeed:
    """A variant on a workload, with one layout and one batch size.

    rates: texts/s, one a round. call_ms: a call of one text (of the smallest batch measured), mean
    over the workload's lengths, one a round.
    """

    variant: str
    workload: str
    layout: Layout
    batch: int
    rates: tuple[float, ...]
    call_ms: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)


def speed(
    runs: Sequence[GridRun], workload: str, weights: Weights, batches: Sequence[int]
) -> VariantSpeed:
    """Of the rounds of one variant on one layout, at the batch size that is best for *weights*."""
    first = runs[0]
    cells = [run.cells for run in runs]
    batch = best_batch(cells, weights, batches, lanes=first.layout.lanes)
    return VariantSpeed(
        variant=first.variant,
        workload=workload,
        layout=first.layout,
        batch=batch,
        rates=tuple(
            texts_per_s(one, weights, batch=batch, lanes=first.layout.lanes) for one in cells
        ),
        call_ms=tuple(ms_a_call(one, weights, batch=min(batches)) for one in cells),
    )


def speeds(
    runs: Sequence[GridRun], workload: str, weights: Weights, batches: Sequence[int]
) -> list[VariantSpeed]:
    """One a variant and layout, in the order they came."""
    groups: dict[tuple[str, Layout], list[GridRun]] = {}
    for run in runs:
        groups.setdefault((run.variant, run.layout), []).append(run)
    return [speed(group, workload, weights, batches) for group in groups.values()]


def fastest(found: Sequence[VariantSpeed]) -> dict[str, VariantSpeed]:
    """Variant -> its best layout."""
    best: dict[str, VariantSpeed] = {}
    for one in found:
        if one.variant not in best or one.rate > best[one.variant].rate:
            best[one.variant] = one
    return best
