"""Lead through all stages, with one endpoint for those that only need one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.artifacts import find_folder
from benchmarks.errors import ImpossibleOption
from benchmarks.record import records_folder
from benchmarks.server import serving
from benchmarks.suite.course import StageOutcome, run_stages
from benchmarks.suite.options import SuiteOptions
from benchmarks.suite.stages import Ground, stages

_log = logging.getLogger(__name__)
_LEAST = {"rounds": 1, "texts_count": 32, "trials": 1, "warmup_s": 0.0}
_ABOVE_0 = (
    *("budget_minutes", "load_s", "overload_s", "cell_s"),
    *("queries_goal_ms", "reviews_goal_ms"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """Every stage with what it left, and where the page is."""

    outcomes: Sequence[StageOutcome]
    output: Path

    @property
    def exit_code(self) -> int:
        """1 when a stage has no result."""
        return int(any(outcome.fault for outcome in self.outcomes))

    def document(self) -> dict[str, object]:
        """The stages; the numbers are in their records."""
        return {
            "stages": [
                {"stage": one.stage, "spent_s": round(one.spent_s, 1), "fault": one.fault}
                for one in self.outcomes
            ],
            "output": str(self.output),
            "records": str(records_folder()),
        }

    def __rich__(self) -> Group:
        """What every stage shows, and all stages in a table below."""
        shown: list[RenderableType] = []
        for one in self.outcomes:
            if one.result is not None:
                shown += [one.result, ""]
        return Group(*shown, self._table())

    def _table(self) -> Table:
        page = "" if self.outcomes[-1].fault else f"Page: {self.output}. "
        table = Table(
            title=f"All stages, {sum(one.spent_s for one in self.outcomes) / 60:.1f} min",
            title_justify="left",
            caption=f"{page}Records: {records_folder()}",
            caption_justify="left",
        )
        table.add_column("stage")
        table.add_column("min", justify="right")
        table.add_column("what became of it", overflow="fold")
        for one in self.outcomes:
            table.add_row(one.stage, f"{one.spent_s / 60:.1f}", one.fault or "done")
        return table


def run_suite(options: SuiteOptions) -> SuiteResult:
    """Run every stage. Ctrl-C ends all; records of what was seen are kept.

    Raises `BenchmarkError` for what cannot be, before anything is started.
    """
    _refuse_impossible(options)
    course = stages(options.only)
    folder = find_folder(options.package, "package")
    with ExitStack() as endpoint:
        ground = Ground(
            options=options, package=folder, url=_endpoint(endpoint, folder, options.port)
        )
        try:
            outcomes = run_stages(course, ground, budget_s=60 * options.budget_minutes)
        except KeyboardInterrupt:
            _log.info("Interrupted; what was seen is kept in %s", records_folder())
            raise
    return SuiteResult(outcomes=outcomes, output=options.output)


def _endpoint(stack: ExitStack, folder: Path, port: int) -> Callable[[], str]:
    """The URL of a server that is started when it is first asked for and ends with *stack*."""
    urls: list[str] = []

    def url() -> str:
        if not urls:
            urls.append(stack.enter_context(serving(str(folder), port=port)).url)
        return urls[0]

    return url


def _refuse_impossible(options: SuiteOptions) -> None:
    for name, least in _LEAST.items():
        if (given := getattr(options, name)) < least:
            raise ImpossibleOption(f"--{_flag(name)} is {given:g}; {least:g} is the least.")
    for name in _ABOVE_0:
        if not (given := getattr(options, name)) > 0:
            raise ImpossibleOption(f"--{_flag(name)} is {given:g}; it must be above 0.")


def _flag(name: str) -> str:
    return name.replace("_", "-")
