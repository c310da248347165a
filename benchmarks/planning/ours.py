"""Our own policy: `serving.planner` and `serving.cost`, driven as `serving.dispatch` drives them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.cost import CostModel
from serving.line import Line, Priority
from serving.package import CostGrid
from serving.planner import WINDOW, is_hopeless, passed_by, plan

# As `serving.settings` and, for lanes of one thread, `serving.core` have it.
MAX_BATCH, MAX_TOKENS = 32, 256


@dataclass(slots=True, eq=False)
class _Waiting:
    text: int
    tokens: int
    work_ms: float
    rank_s: float
    due_s: float
    passed_ms: float = 0.0
    priority: Priority = "interactive"


class Planned:
    """The planner with its line and its learning cost model. The same steps as the dispatcher's.

    within_s: every text is due so long after it came; who would be late is dropped, not run.
    """

    def __init__(self, grid: CostGrid, *, within_s: float = math.inf) -> None:
        self._cost = CostModel(grid)
        self._line: Line[_Waiting] = Line()
        self._within_s = within_s
        self._max_tokens = max(MAX_TOKENS, grid.lengths[-1])

    def arrive(self, text: int, tokens: int, now_s: float) -> None:
        """To the end of the line."""
        work_ms = self._cost.ms(1, tokens)
        self._line.add(_Waiting(text, tokens, work_ms, now_s, now_s + self._within_s))

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:
        """As `Dispatcher._next_planned`."""
        window = self._line.first(WINDOW)
        if late := [t for t in window if t.due_s < math.inf and is_hopeless(t, self._cost, now_s)]:
            self._line.remove(late)
            window = self._line.first(WINDOW)
        chosen = plan(
            window,
            self._cost,
            max_batch=MAX_BATCH,
            max_tokens=self._max_tokens,
            lanes=free_lanes,
            now_s=now_s,
        )
        batch = [window[index] for index in chosen]
        for index, ms in passed_by(window, chosen, self._cost).items():
            window[index].passed_ms += ms
        self._line.remove(batch)
        return [waiting.text for waiting in batch]

    def ran(self, batch: int, longest: int, ms: float) -> None:
        """Learn from it."""
        self._cost.observe(batch, longest, ms)

    def wakes_s(self) -> float:
        """Never: it waits for a free lane, not for a timer."""
        return math.inf

    def wake(self, now_s: float) -> None:
        """Never asked for."""
