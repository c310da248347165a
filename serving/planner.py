"""What to run next: a pure function of what waits, what it costs and what time it is.

Fair by construction: every batch contains the text that has waited longest, so a text waits for at
most as many batches as there were texts before it. Frugal by the cost model: another text joins
only when that is cheaper than running it alone, so a batch never costs more than its texts
one by one, and nothing is padded in vain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Candidates looked at in one decision: bounds the work when thousands wait.
_WINDOW = 256


class Cost(Protocol):
    """Milliseconds for a batch of texts whose longest has *length* tokens."""

    def ms(self, batch: int, length: int) -> float:
        """Monotone in both."""
        ...


def plan(lengths: Sequence[int], cost: Cost, *, max_batch: int) -> list[int]:
    """Indices of the next batch, ascending; *lengths* are tokens in order of arrival.

    Empty only when nothing waits. The oldest text is always in it.
    """
    if not lengths:
        return []
    chosen, longest = [0], lengths[0]
    spent_ms = cost.ms(1, longest)
    window = range(1, min(len(lengths), _WINDOW))
    # Similar lengths first: they pad least. The sort is stable, so equals keep their order.
    for index in sorted(window, key=lambda i: abs(lengths[i] - lengths[0])):
        if len(chosen) >= max_batch:
            break
        padded = max(longest, lengths[index])
        together_ms = cost.ms(len(chosen) + 1, padded)
        if together_ms <= spent_ms + cost.ms(1, lengths[index]):
            chosen.append(index)
            longest, spent_ms = padded, together_ms
    return sorted(chosen)


def queued_ms(lengths: Sequence[int], cost: Cost, *, lanes: int) -> float:
    """Milliseconds until everything that waits has run, had each text run alone: an upper bound."""
    return sum(cost.ms(1, length) for length in lengths) / lanes
