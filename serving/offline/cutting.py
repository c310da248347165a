"""How texts whose lengths are all known are cut into batches: pure.

The server's planner sees a line that grows; here nobody waits, so that only the work counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.planner import Cost

# Where more texts save less than this, they only fill memory.
_NO_GAIN = 1.01


def cut(
    tokens: Sequence[int], cost: Cost, *, max_batch: int, max_tokens: float
) -> list[tuple[int, int]]:
    """(begin, end) of each batch of texts of so many *tokens*, descending; all are in one, in order.

    From the longest on, each batch is the one of fewest milliseconds for its worth, where a text is
    worth what it would cost in the best batch of its own length. max_tokens: with padding; a text
    alone may have more.
    """
    best_ms: dict[int, float] = {}
    for length in tokens:
        if length not in best_ms:
            most = max(1, min(max_batch, int(min(max_tokens / length, max_batch))))
            best_ms[length] = min(cost.ms(size, length) / size for size in range(1, most + 1))
    batches, begin = [], 0
    while begin < len(tokens):
        length = tokens[begin]
        most = min(max_batch, int(min(max_tokens / length, max_batch)), len(tokens) - begin)
        worth_ms, ratios = 0.0, []
        for size in range(1, max(most, 1) + 1):
            worth_ms += best_ms[tokens[begin + size - 1]]
            ratios.append(cost.ms(size, length) / worth_ms)
        enough = min(ratios) * _NO_GAIN
        end = begin + next(size for size, ratio in enumerate(ratios, 1) if ratio <= enough)
        batches.append((begin, end))
        begin = end
    return batches
