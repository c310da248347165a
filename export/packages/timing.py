"""`miniml package bench`: the engine alone on this machine, beside the numbers of the export."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.console import Group

from export.errors import UnusableOption
from export.machine import machine
from export.package_options import PackageBenchOptions
from export.packages.opening import OpenedPackage, golden_answers, open_reference
from export.packages.showing import facts, table
from serving.cost import GridCost
from serving.engine import Engine
from serving.lanes import Lanes, choose_lanes, measure_cost, usable_cores
from serving.package import CostGrid

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageBench:
    """Milliseconds of one lane while all are busy, here and at the export, over the same grid.

    lanes: how many, of how many threads, here. golden_tokens: lengths of the golden texts, which
    the texts/s are weighted over.
    """

    opened: OpenedPackage
    here: CostGrid
    lanes: Lanes
    golden_tokens: tuple[int, ...]

    @property
    def exported(self) -> CostGrid:
        """The package's own `cost.json`."""
        return self.opened.package.cost

    def document(self) -> dict[str, object]:
        """Both grids, and their ratio (here / exported) over the cells of here."""
        return {
            **self.opened.document(),
            "lanes": asdict(self.lanes),
            "here": asdict(self.here),
            "exported": asdict(self.exported),
            "ratio": [[ratio and round(ratio, 4) for ratio in row] for row in self._ratios()],
            "golden_tokens": list(self.golden_tokens),
            "texts_per_s": round(texts_per_s(self.here, self.golden_tokens), 2),
            "exported_texts_per_s": round(texts_per_s(self.exported, self.golden_tokens), 2),
        }

    def __rich__(self) -> Group:
        """A row for each cell, then the texts/s and the machines."""
        here, exported = (
            f"{texts_per_s(grid, self.golden_tokens):.1f} on {grid.machine}"
            for grid in (self.here, self.exported)
        )
        return Group(
            facts((("package", self.opened.reference), ("digest", self.opened.package.digest))),
            table(("batch", "tokens", "ms here", "ms exported", "here / exported"), self._cells()),
            f"texts/s of one lane of {self.lanes.threads} thread(s) while {self.lanes.count} are busy,"
            f" one at a time, over the lengths of {len(self.golden_tokens)} golden texts:",
            facts((("here", here), ("exported", exported))),
        )

    def _cells(self) -> Iterator[tuple[object, ...]]:
        written = _by_cell(self.exported)
        for batch, row, ratios in zip(self.here.batches, self.here.ms, self._ratios(), strict=True):
            for length, ms, ratio in zip(self.here.lengths, row, ratios, strict=True):
                before = written.get((batch, length))
                shown = "-" if before is None else f"{before:.2f}"
                yield batch, length, f"{ms:.2f}", shown, f"{ratio:.2f}" if ratio else "-"

    def _ratios(self) -> list[list[float | None]]:
        """None where the export measured nothing."""
        written = _by_cell(self.exported)
        return [
            [
                ms / before if (before := written.get((batch, length))) else None
                for length, ms in zip(self.here.lengths, row, strict=True)
            ]
            for batch, row in zip(self.here.batches, self.here.ms, strict=True)
        ]


def bench_package(options: PackageBenchOptions) -> PackageBench:
    """Measure the package's own grid again. Raises `RegistryError`, `PackageError`, ..."""
    if not options.budget_s > 0:
        raise UnusableOption(f"--budget-s is {options.budget_s}; it must be above 0.")
    opened = open_reference(options.package)
    cost = opened.package.cost
    lanes = choose_lanes(usable_cores(), threads=cost.threads)  # as the export measures
    engine = Engine(opened.package, threads=lanes.threads, streams=lanes.count)
    golden = golden_answers(opened.package)
    encodings = engine.tokenizer.encode([g.text for g in golden], [g.text_pair for g in golden])
    _log.info("Measuring ms over batch x length, for about %g s", options.budget_s)
    here = measure_cost(
        engine,
        machine=machine(),
        lanes=lanes,
        batches=cost.batches,
        lengths=cost.lengths,
        budget_s=options.budget_s,
    )
    tokens = tuple(map(len, encodings))
    return PackageBench(opened=opened, here=here, lanes=lanes, golden_tokens=tokens)


def texts_per_s(grid: CostGrid, lengths: Sequence[int]) -> float:
    """What one lane does with texts of these lengths, one at a time."""
    model = GridCost(grid)
    return 1e3 * len(lengths) / sum(model.ms(1, length) for length in lengths)


def _by_cell(grid: CostGrid) -> dict[tuple[int, int], float]:
    return {
        (batch, length): ms
        for batch, row in zip(grid.batches, grid.ms, strict=True)
        for length, ms in zip(grid.lengths, row, strict=True)
    }
