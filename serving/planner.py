"""What to run next: a pure function of what waits, what it costs and when it is due.

Fair by construction: every batch contains the text that has waited longest, so a text waits for at
most as many batches as there were texts before it. Frugal by the cost model: another text joins
only when that is cheaper than running it alone, so a batch costs less than its texts one by one,
and nothing is padded in vain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

# Candidates looked at in one decision: bounds the work when thousands wait.
_WINDOW = 256


class Cost(Protocol):
    """Milliseconds for a batch of texts whose longest has *length* tokens."""

    def ms(self, batch: int, length: int) -> float:
        """Monotone in both."""
        ...


def plan(
    lengths: Sequence[int],
    cost: Cost,
    *,
    max_batch: int,
    lanes: int = 1,
    due_ms: Sequence[float] | None = None,
) -> list[int]:
    """Indices of the next batch, ascending; *lengths* are tokens in order of arrival.

    lanes: that are free now; a batch takes at most its share of the texts, so that none stays idle.
    due_ms: from now until each text must be answered; no text joins a batch that this would make
    late for one of its texts. Empty only when nothing waits; the oldest text is always in it.
    """
    if not lengths:
        return []
    dues = due_ms or [math.inf] * len(lengths)
    most = min(max_batch, math.ceil(len(lengths) / lanes))
    chosen, longest, due = [0], lengths[0], dues[0]
    spent_ms = cost.ms(1, longest)
    window = range(1, min(len(lengths), _WINDOW))
    # Similar lengths first: they pad least. Equals stand together, and a stable sort keeps them in
    # order of arrival: whatever keeps one out keeps out the next.
    for index in sorted(window, key=lambda i: (abs(lengths[i] - lengths[0]), lengths[i])):
        if len(chosen) >= most:
            break
        padded, sooner = max(longest, lengths[index]), min(due, dues[index])
        together_ms = cost.ms(len(chosen) + 1, padded)
        gains = together_ms < spent_ms + cost.ms(1, lengths[index])
        if gains and together_ms <= sooner:
            chosen.append(index)
            longest, spent_ms, due = padded, together_ms, sooner
    return sorted(chosen)


def is_hopeless(length: int, due_ms: float, cost: Cost) -> bool:
    """Whether a text of *length* tokens, due in *due_ms*, would be late even if it ran now, alone."""
    return cost.ms(1, length) > due_ms
