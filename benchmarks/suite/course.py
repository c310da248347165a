"""One stage after another, whatever becomes of each; and what became of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.suite.budget import allowance_s, at_most
from benchmarks.suite.stages import Ground, SuiteStage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutcome:
    """fault: why there is no result, one sentence; empty when there is one."""

    stage: str
    spent_s: float
    result: Any = None
    fault: str = ""


def run_stages(
    stages: Sequence[SuiteStage],
    ground: Ground,
    *,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[StageOutcome]:
    """All of them, in order. What a user can mend, or the clock, ends one stage and not the rest.

    Ctrl-C ends all. What is a bug shows its traceback, as everywhere.
    """
    begin_s, outcomes = clock(), list[StageOutcome]()
    for place, stage in enumerate(stages):
        left_s = max(0.0, budget_s - (clock() - begin_s))
        limit_s = allowance_s(left_s, [later.share for later in stages[place:]])
        _log.info(
            "Stage %d of %d: %s. %.1f min gone, %.1f left, %.1f of them for this.",
            place + 1,
            len(stages),
            stage.name,
            (clock() - begin_s) / 60,
            left_s / 60,
            limit_s / 60,
        )
        outcomes.append(_run(stage, ground, limit_s, clock))
        if outcomes[-1].fault:
            _log.warning("%s: %s", stage.name, outcomes[-1].fault)
    return outcomes


def _run(
    stage: SuiteStage, ground: Ground, limit_s: float, clock: Callable[[], float]
) -> StageOutcome:
    begin_s, result, fault = clock(), None, ""
    try:
        with at_most(limit_s):
            result = stage.run(ground)
    except Exception as error:
        if getattr(error, "exit_code", None) is None:  # nothing the user can mend: see `miniml.py`
            raise
        fault = " ".join(filter(None, (str(error), getattr(error, "hint", ""))))
    return StageOutcome(stage=stage.name, spent_s=clock() - begin_s, result=result, fault=fault)
