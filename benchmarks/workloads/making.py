"""Made-up English texts whose lengths are those of real ones, in an order that the seed repeats.

Reviews are put together from those of the embedded sample, queries from sentences with gaps.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from benchmarks.workloads.files import read_rows
from benchmarks.workloads.phrases import QUERY_GAPS, QUERY_SENTENCES, QUERY_WORDS, REVIEW_WORDS

SAMPLE = Path(__file__).parents[2] / "training" / "sample" / "reviews.jsonl"
Quantiles = Sequence[tuple[float, int]]  # (share of texts that are no longer, words), ascending
_DISTINCT = 512
_LONG_SHARE = 0.95


def reviews(count: int, seed: int) -> list[str]:
    """*count* English texts as long as real reviews: 1 to 945 words, the median 101."""
    return _reviews(count, seed, REVIEW_WORDS)


def queries(count: int, seed: int) -> list[str]:
    """*count* English texts as long as real questions to a bank: 2 to 79 words, the median 10."""

    def sentence(chance: random.Random) -> str:
        def fill(gap: re.Match[str]) -> str:
            return chance.choice(QUERY_GAPS[gap.group(1)].split(","))

        return re.sub(r"{(\w+)}", fill, chance.choice(QUERY_SENTENCES))

    return _texts(count, seed, QUERY_WORDS, sentence)


def mixed(count: int, seed: int) -> list[str]:
    """Reviews and queries by turns: short and long texts meet in every batch."""
    makers = (reviews((count + 1) // 2, seed), queries(count // 2, seed + 1))
    return [makers[place % 2][place // 2] for place in range(count)]


def long_reviews(count: int, seed: int) -> list[str]:
    """As long as the longest twentieth of reviews: 348 to 945 words, more than most models read."""
    longest = [(share, words) for share, words in REVIEW_WORDS if share >= _LONG_SHARE]
    (first, _), (last, _) = longest[0], longest[-1]
    return _reviews(count, seed, [((s - first) / (last - first), words) for s, words in longest])


def repeated(count: int, seed: int) -> list[str]:
    """Queries of which few are asked often: Zipf's law, the n-th of 512 as often as 1/n of the first."""
    return zipf(queries(_DISTINCT, seed), count, seed)


def zipf(texts: Sequence[str], count: int, seed: int, *, exponent: float = 1.0) -> list[str]:
    """So many draws from *texts*: the n-th as often as 1 / n^exponent of the first."""
    weights = list(accumulate(place**-exponent for place in range(1, len(texts) + 1)))
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    return chance.choices(texts, cum_weights=weights, k=count)


REPEATED = "repeated"
WORKLOADS: Mapping[str, Callable[[int, int], list[str]]] = {
    "reviews": reviews,
    "queries": queries,
    "mixed": mixed,
    "long": long_reviews,
    REPEATED: repeated,
}


def _reviews(count: int, seed: int, lengths: Quantiles) -> list[str]:
    sample = [row["text"] for row in read_rows(SAMPLE)]
    return _texts(count, seed, lengths, lambda chance: chance.choice(sample))


def _texts(
    count: int, seed: int, lengths: Quantiles, more: Callable[[random.Random], str]
) -> list[str]:
    """Texts whose lengths spread evenly over the distribution, in an order of chance.

    Evenly and not drawn: two seeds then make loads of almost equal work. more: some further words.
    """
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    words = [_words_at((place + chance.random()) / count, lengths) for place in range(count)]
    chance.shuffle(words)
    return [_text(length, more, chance) for length in words]


def _words_at(share: float, lengths: Quantiles) -> int:
    """The length that *share* of the distribution does not exceed."""
    for (low, short), (high, long) in pairwise(lengths):
        if share <= high:
            return round(short + (long - short) * (share - low) / (high - low))
    return lengths[-1][1]


def _text(length: int, more: Callable[[random.Random], str], chance: random.Random) -> str:
    """Exactly *length* words."""
    words: list[str] = []
    while len(words) < length:
        words += more(chance).split()
    return " ".join(words[:length])
