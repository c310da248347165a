"""What one decision of our planner costs this machine while very many texts wait: measured."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.planning.ours import Planned
from serving.package import CostGrid

WAITING = 10_000
_ROUNDS = 40
# Near enough that most texts of a window could be late in company: the most a decision has to weigh.
_TIGHT_S = 0.03


def decision_times_ms(
    tokens: Sequence[int], grid: CostGrid, *, tight: bool, seed: int, rounds: int = _ROUNDS
) -> list[float]:
    """CPU ms of the first decision on a fresh line of `WAITING` texts, once a round.

    Looking at the line's head, dropping who would be late, planning, accounting for who was passed
    by and removing the batch are in it. The first decision is the dearest: nobody cuts the window.
    CPU time of this thread, since other processes are not the planner's, and without Python's
    collector, which would look through all that this made. tight: each text is due.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    times_ms = []
    for _ in range(rounds):
        planned = Planned(grid, within_s=_TIGHT_S if tight else math.inf)
        for text, length in enumerate(chance.choices(tokens, k=WAITING)):
            planned.arrive(text, length, 0.0)
        with _uncollected():
            start_s = time.thread_time()
            planned.next_batch(0.0, 1)
            times_ms.append((time.thread_time() - start_s) * 1e3)
    return times_ms


@contextmanager
def _uncollected() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
