"""What to run next: a pure function of what waits, what it costs and what the time is.

Fair by construction: every batch contains the text that is first in line, and a text that later
ones have passed by `PATIENCE` times its own cost is passed no more. Frugal by the cost model: of
all batches around that text the one with the fewest milliseconds for its worth, where a text is
worth what it would cost alone. So a batch never costs more than its texts one by one, and nothing
is padded in vain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

# Texts looked at in one decision: bounds the work when thousands wait.
WINDOW = 256
# A text lets others pass by at most so many times its own cost, and one more batch. Low, it is no
# kindness: in a deep line it is used up by all, every batch shrinks to the first text, and the line
# grows (`miniml bench planner`). What keeps waits short is that the first in line is always next.
PATIENCE = 100.0
# Where more texts save less than 2 %, they would only wait for each other, and fill memory.
_NO_GAIN = 1.02
# A batch that saves less than 5 % is as likely the cost model's error as a gain.
_DOUBTFUL = 1.05


class Cost(Protocol):
    """Milliseconds for a batch of texts whose longest has *length* tokens."""

    def ms(self, batch: int, length: int) -> float:
        """Monotone in both."""
        ...


class Waiting(Protocol):
    """One text that waits.

    tokens: its length. work_ms: its cost alone. due_s: when it must be answered, on the clock of
    `plan`'s now_s. passed_ms: work of texts behind it that was run before it so far.
    """

    tokens: int
    work_ms: float
    due_s: float
    passed_ms: float


def plan(  # noqa: PLR0913 - the settings of a decision, all by name
    waiting: Sequence[Waiting],
    cost: Cost,
    *,
    max_batch: int,
    max_tokens: float = math.inf,
    lanes: int = 1,
    now_s: float = 0.0,
) -> list[int]:
    """Indices into *waiting*, whose order is the line, of the next batch, ascending.

    max_batch, max_tokens: texts of a batch, and tokens with padding, which a text alone may exceed.
    lanes: that are free now; a batch takes at most its share, so that none stays idle. No text joins
    a batch that this would make late for one of its texts. Empty only when nothing waits. Looks at
    the first `WINDOW` texts and no further, and asks *cost* for few more shapes than that.
    """
    line = _up_to_the_impatient(waiting[:WINDOW])
    if len(line) <= 1:
        return list(range(len(line)))
    first = _anchor(line, now_s)
    most = min(max_batch, math.ceil(len(line) / lanes))
    return _frugal(_growth(line, first, cost, most, max_tokens, now_s))


def passed_by(waiting: Sequence[Waiting], batch: Sequence[int], cost: Cost) -> dict[int, float]:
    """Index -> ms of *batch* that later texts owe to each text it passes by.

    A batch's time is shared out by worth. `Waiting.passed_ms` grows by this when the batch is run.
    """
    if not batch or max(batch) < len(batch):  # the first in line: nobody is passed
        return {}
    together_ms = cost.ms(len(batch), max(waiting[i].tokens for i in batch))
    share = together_ms / sum(waiting[i].work_ms for i in batch)
    left, behind_ms = set(batch), 0.0
    owed = {}
    for index in range(max(batch), -1, -1):
        if index in left:
            behind_ms += share * waiting[index].work_ms
        else:
            owed[index] = behind_ms
    return owed


def is_hopeless(text: Waiting, cost: Cost, now_s: float) -> bool:
    """Whether *text* would be late even if it ran now, alone; by what it cost when it came, too."""
    if now_s + text.work_ms / 1e3 <= text.due_s:  # mostly so, and no cost need be asked
        return False
    return now_s + cost.ms(1, text.tokens) / 1e3 > text.due_s


def _up_to_the_impatient(window: Sequence[Waiting]) -> Sequence[Waiting]:
    """The line up to and with the first text that may be passed no more."""
    for index, text in enumerate(window):
        if text.passed_ms > PATIENCE * text.work_ms:
            return window[: index + 1]
    return window


def _anchor(line: Sequence[Waiting], now_s: float) -> int:
    """Who is in the next batch in any case: the first in line.

    Or the one due soonest of those that could not wait until the first had run; not when the first
    has been passed by enough.
    """
    first = line[0]
    if first.passed_ms > PATIENCE * first.work_ms:
        return 0
    after_s = now_s + first.work_ms / 1e3
    urgent = [
        index
        for index, text in enumerate(line)
        if text.due_s != math.inf and after_s + text.work_ms / 1e3 > text.due_s
    ]
    return min(urgent, key=lambda index: line[index].due_s, default=0)


def _growth(  # noqa: PLR0913, PLR0917 - of `plan`, which says what they are
    line: Sequence[Waiting], first: int, cost: Cost, most: int, max_tokens: float, now_s: float
) -> list[tuple[int, float]]:
    """Text by text, the cheapest way to grow a batch from *first*: who joins, and ms for its worth.

    The next text is always the nearest shorter or the nearest longer one: between two that would be
    padded to the same length, the longer is worth more.
    """
    tokens = [text.tokens for text in line]
    size = longest = tokens[first]
    shorter, longer = _neighbours(tokens, first)
    worth_ms, due_s = line[first].work_ms, line[first].due_s
    grown = [(first, cost.ms(1, size) / worth_ms)]
    level_ms = cost.ms(2, size)  # of one text more that is no longer
    while len(grown) < most and (shorter or longer):
        sides = []
        if shorter:
            index = shorter[-1]
            sides.append((level_ms / (worth_ms + line[index].work_ms), longest, index))
        if longer:
            index = longer[-1]
            ms = level_ms if tokens[index] == longest else cost.ms(len(grown) + 1, tokens[index])
            sides.append((ms / (worth_ms + line[index].work_ms), tokens[index], index))
        ratio, padded, index = min(sides)
        text, side = line[index], shorter if tokens[index] < size else longer
        if (len(grown) + 1) * padded > max_tokens:  # nor does any further one of this side fit
            side.clear()
            continue
        side.pop()
        together_s = now_s + ratio * (worth_ms + text.work_ms) / 1e3
        if together_s > due_s:  # nor is the batch in time with any further one of this side
            side.clear()
        elif together_s <= text.due_s:
            longest, worth_ms, due_s = padded, worth_ms + text.work_ms, min(due_s, text.due_s)
            grown.append((index, ratio))
            level_ms = cost.ms(len(grown) + 1, longest)
    return grown


def _neighbours(tokens: Sequence[int], first: int) -> tuple[list[int], list[int]]:
    """The shorter ones than *first*, and the others; nearest last, to be popped, then earliest."""
    shorter = [i for i, length in enumerate(tokens) if length < tokens[first]]
    longer = [i for i, length in enumerate(tokens) if length >= tokens[first] and i != first]
    shorter.sort(key=tokens.__getitem__, reverse=True)
    longer.sort(key=tokens.__getitem__)
    return shorter[::-1], longer[::-1]


def _frugal(grown: Sequence[tuple[int, float]]) -> list[int]:
    """The part of a growing batch that is cheapest for its worth; of near equals the smallest.

    Its first text alone when company saves little.
    """
    best = min(ratio for _, ratio in grown)
    if grown[0][1] <= best * _DOUBTFUL:
        return [grown[0][0]]
    size = next(n for n, (_, ratio) in enumerate(grown, 1) if ratio <= best * _NO_GAIN)
    return sorted(index for index, _ in grown[:size])
