"""How fast a graph is: what is timed, and what the times mean for texts of the exam's lengths.

Pure but for `time_graph`, which runs in a process of its own (`export.trial`).
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.cost import GridCost
from serving.lanes import Lanes, filler, time_batch
from serving.package import CostGrid
from serving.session import Session

_BATCHES = (1, 4, 8)
_PERCENTILES = (10, 50, 90)  # of the exam's lengths
_REPEATS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One round of one graph: median ms of a lane, all lanes busy, over batches x lengths."""

    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    load_s: float
    peak_memory_bytes: int

    def document(self) -> dict[str, Any]:
        """JSON between the processes."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What all rounds say: medians, with the slowest and the fastest round beside them.

    texts_per_s: of all lanes, over texts of the exam's lengths, in the batches that are cheapest a
    text (alone when company would change answers). latency_ms: of one text, the mean over lengths.
    spread: slowest round over fastest, for each cell of ms.
    """

    texts_per_s: float
    texts_per_s_low: float
    texts_per_s_high: float
    latency_ms: float
    load_s: float
    peak_memory_bytes: int
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    rounds: int

    def document(self) -> dict[str, Any]:
        """As it stands in `gates.json`."""
        numbers = asdict(self)
        grid = {name: numbers.pop(name) for name in ("batches", "lengths", "ms", "spread")}
        return {**numbers, "grid": grid}


def timed_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """The lengths to time: short, usual and long texts of the exam."""
    found = np.percentile(np.asarray(lengths), _PERCENTILES, method="nearest")
    return tuple(sorted({int(length) for length in found}))


def time_graph(
    open_graph: Callable[[], Session],
    lengths: Sequence[int],
    lanes: Lanes,
    budget_s: float,
) -> Timing:
    """Load a graph and time it; cells get fewer repeats, one at least, when the budget is spent."""
    start_s = time.perf_counter()
    session = open_graph()
    load_s = time.perf_counter() - start_s
    run = partial(session.run, pad_token_id=0)
    rows = []
    cells_left = len(_BATCHES) * len(lengths)
    deadline_s = time.perf_counter() + budget_s
    for batch in _BATCHES:
        row = []
        for length in lengths:
            texts = [filler(length)] * batch
            until_s = time.perf_counter() + (deadline_s - time.perf_counter()) / cells_left
            time_batch(run, texts, lanes.count, 1, until_s)  # the first run of a shape allocates
            times = time_batch(run, texts, lanes.count, _REPEATS, until_s)
            row.append(statistics.median(times))
            cells_left -= 1
        rows.append(tuple(row))
    return Timing(
        batches=_BATCHES,
        lengths=tuple(lengths),
        ms=tuple(rows),
        load_s=load_s,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _peak_memory_bytes() -> int:
    """Of this process. Not `getrusage`: its maximum includes the parent at the time of the fork."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def speed_of(
    timings: Sequence[Timing], lengths: Sequence[int], *, lanes: int, batched: bool
) -> Speed:
    """What *timings* of one graph say for texts of *lengths* tokens; batched: company is harmless."""
    first = timings[0]
    cube = np.array([timing.ms for timing in timings])  # (rounds, batches, lengths)
    middle = np.median(cube, axis=0)
    rates = [_texts_per_s(first, ms, lengths, lanes, batched=batched) for ms in (middle, *cube)]
    return Speed(
        texts_per_s=rates[0],
        texts_per_s_low=min(rates[1:]),
        texts_per_s_high=max(rates[1:]),
        latency_ms=float(np.mean(_text_ms(first, middle, lengths, first.batches[:1]))),
        load_s=statistics.median(timing.load_s for timing in timings),
        peak_memory_bytes=max(timing.peak_memory_bytes for timing in timings),
        batches=first.batches,
        lengths=first.lengths,
        ms=_rows(middle),
        spread=_rows(cube.max(axis=0) / cube.min(axis=0)),
        rounds=len(timings),
    )


def _texts_per_s(
    timing: Timing, ms: np.ndarray, lengths: Sequence[int], lanes: int, *, batched: bool
) -> float:
    batches = timing.batches if batched else timing.batches[:1]
    return float(lanes * 1e3 / np.mean(_text_ms(timing, ms, lengths, batches)))


def _text_ms(
    timing: Timing, ms: np.ndarray, lengths: Sequence[int], batches: Sequence[int]
) -> list[float]:
    """Milliseconds of a lane for a text of each length, in the cheapest of *batches*."""
    grid = CostGrid(
        batches=timing.batches, lengths=timing.lengths, ms=_rows(ms), threads=1, machine=""
    )
    cost = GridCost(grid)
    cheapest = {
        length: min(cost.ms(batch, length) / batch for batch in batches) for length in set(lengths)
    }
    return [cheapest[length] for length in lengths]


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    assert all(math.isfinite(value) for value in values.flat), "a time is no number; this is a bug"
    return tuple(tuple(round(float(value), 4) for value in row) for row in values)
