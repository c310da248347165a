"""What a load test sends: texts and request bodies, in a seeded order that every run repeats.

Texts come from a file, or are made here with the lengths of real ones. Knows nothing of servers.
"""

from __future__ import annotations

import json
import random
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.errors import NoTexts
from benchmarks.phrases import (
    QUERY_GAPS,
    QUERY_SENTENCES,
    QUERY_WORDS,
    REVIEW_GAPS,
    REVIEW_SENTENCES,
    REVIEW_WORDS,
)
from benchmarks.record import percentile
from benchmarks.wire import Body

Row = Mapping[str, str]  # {"text": ...} or {"text": ..., "text_pair": ...}
Quantiles = Sequence[tuple[float, int]]  # (share of texts that are no longer, words), ascending


def read_rows(path: Path) -> list[Row]:
    """The texts of a `.jsonl` file (objects with `text`, optionally `text_pair`), else one a line.

    Raises `NoTexts` when there is no such file or no text in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 is text
    except (OSError, UnicodeDecodeError) as error:
        raise NoTexts(f"{path} cannot be read ({error}); give a .txt or .jsonl file.") from error
    rows = [_row(line, path) for line in lines if line.strip()]
    if not rows:
        raise NoTexts(f"{path} holds no text; give one text a line, or JSONL with a `text` field.")
    return rows


def _row(line: str, path: Path) -> Row:
    if path.suffix != ".jsonl":
        return {"text": line}
    try:
        document: Any = json.loads(line)
        keys = ("text", "text_pair") if document.get("text_pair") else ("text",)
        return {key: str(document[key]) for key in keys}
    except (ValueError, AttributeError, KeyError) as error:
        raise NoTexts(f"{path}: {line[:60]!r} is not a JSON object with a `text` field.") from error


def request_bodies(rows: Sequence[Row], *, texts_per_call: int, seed: int) -> list[bytes]:
    """One pass over *rows* in seeded order as JSON bodies of `POST /predict`.

    texts_per_call 1 sends `text`; more sends `texts`, the last call holding what is left.
    """
    order = list(rows)
    random.Random(seed).shuffle(order)  # noqa: S311 - a workload, not a secret
    if texts_per_call == 1:
        return [json.dumps(dict(row)).encode() for row in order]
    bodies = []
    for start in range(0, len(order), texts_per_call):
        chunk = order[start : start + texts_per_call]
        body: dict[str, list[str]] = {"texts": [row["text"] for row in chunk]}
        if any("text_pair" in row for row in chunk):
            body["text_pairs"] = [row.get("text_pair", "") for row in chunk]
        bodies.append(json.dumps(body).encode())
    return bodies


def reviews(count: int, seed: int) -> list[str]:
    """*count* English texts as long as real reviews: 1 to 945 words, the median 101."""
    return _texts(count, seed, REVIEW_WORDS, REVIEW_SENTENCES, REVIEW_GAPS)


def queries(count: int, seed: int) -> list[str]:
    """*count* English texts as long as real questions to a bank: 2 to 79 words, the median 10."""
    return _texts(count, seed, QUERY_WORDS, QUERY_SENTENCES, QUERY_GAPS)


WORKLOADS: Mapping[str, Callable[[int, int], list[str]]] = {"reviews": reviews, "queries": queries}


def call_bodies(texts: Sequence[str], *, texts_per_call: int = 1, **fields: Any) -> list[Body]:
    """Bodies of `POST /predict` in the order of *texts*, with further *fields* in each.

    texts_per_call 1 sends `text`; more sends `texts`, the last call holding what is left.
    """
    if texts_per_call == 1:
        return [Body(content=_json({"text": text, **fields}), texts=1) for text in texts]
    starts = range(0, len(texts), texts_per_call)
    chunks = [list(texts[start : start + texts_per_call]) for start in starts]
    return [Body(content=_json({"texts": c, **fields}), texts=len(c)) for c in chunks]


def describe_lengths(texts: Sequence[str]) -> str:
    """One line on how long *texts* are, in words."""
    words = [len(text.split()) for text in texts]
    parts = [f"p{share} {percentile(words, share):.0f}" for share in (5, 25, 50, 75, 95, 99)]
    mean = statistics.fmean(words)
    return f"{len(texts)} texts, words: {', '.join(parts)}, longest {max(words)}, mean {mean:.0f}"


def _texts(
    count: int,
    seed: int,
    lengths: Quantiles,
    sentences: Sequence[str],
    gaps: Mapping[str, str],
) -> list[str]:
    """Texts whose lengths spread evenly over the distribution, in an order of chance.

    Evenly and not drawn: two seeds then make loads of almost equal work.
    """
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    words = [_words_at((place + chance.random()) / count, lengths) for place in range(count)]
    chance.shuffle(words)
    return [_text(length, sentences, gaps, chance) for length in words]


def _words_at(share: float, lengths: Quantiles) -> int:
    """The length that *share* of the distribution does not exceed."""
    for (low, short), (high, long) in pairwise(lengths):
        if share <= high:
            return round(short + (long - short) * (share - low) / (high - low))
    return lengths[-1][1]


def _text(
    length: int, sentences: Sequence[str], gaps: Mapping[str, str], chance: random.Random
) -> str:
    """Exactly *length* words of sentences."""

    def fill(gap: re.Match[str]) -> str:
        return chance.choice(gaps[gap.group(1)].split(","))

    words: list[str] = []
    while len(words) < length:
        words += re.sub(r"{(\w+)}", fill, chance.choice(sentences)).split()
    return " ".join(words[:length])


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
