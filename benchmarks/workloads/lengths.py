"""How long texts are, in words: a line, and a histogram for a terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.record import percentile

_BAR_COLUMNS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def describe_lengths(texts: Sequence[str]) -> str:
    """One line on how long *texts* are, in words."""
    words = word_counts(texts)
    parts = [f"p{share} {percentile(words, share):.0f}" for share in (5, 25, 50, 75, 95, 99)]
    mean = statistics.fmean(words)
    return f"{len(texts)} texts, words: {', '.join(parts)}, longest {max(words)}, mean {mean:.0f}"


def length_histogram(texts: Sequence[str]) -> str:
    """A line for each power of two of words: from, to, a bar, how many texts."""
    counts = buckets(word_counts(texts))
    most = max((count for _, _, count in counts), default=0)
    width = len(str(counts[-1][1])) if counts else 1
    lines = (
        f"{low:>{width}} to {high:>{width}} words {_bar(count / most):<{_BAR_COLUMNS}} {count}"
        for low, high, count in counts
    )
    return "\n".join(lines)


def buckets(words: Sequence[int]) -> list[tuple[int, int, int]]:
    """[(fewest, most, texts)] from the shortest text's power of two to the longest's, no gaps."""
    found = Counter(count.bit_length() for count in words)
    return [(_least(bits), (1 << bits) - 1, found[bits]) for bits in _span(found)]


def word_counts(texts: Sequence[str]) -> list[int]:
    """Words of each text, as white space parts them."""
    return [len(text.split()) for text in texts]


def _span(found: Counter[int]) -> Iterator[int]:
    yield from range(min(found), max(found) + 1) if found else ()


def _least(bits: int) -> int:
    return 1 << (bits - 1) if bits else 0


def _bar(share: float) -> str:
    """*share* of the columns, to an eighth of one."""
    whole, eighths = divmod(round(share * _BAR_COLUMNS * 8), 8)
    return "█" * whole + (_EIGHTHS[eighths] if eighths else "")
