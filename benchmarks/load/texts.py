"""Which texts a load of an endpoint sends: the user's, made-up ones, or the endpoint's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.errors import ImpossibleOption
from benchmarks.load.endpoint import examples
from benchmarks.workloads import (
    MOST_TEXTS_PER_CALL,
    WORKLOADS,
    Row,
    describe_lengths,
    length_histogram,
    read_rows,
)

_TEXTS = 2048  # a load goes round
_EXAMPLES = "examples"
_log = logging.getLogger(__name__)


class TextOptions(Protocol):
    """The options that choose texts."""

    @property
    def texts(self) -> Path | None:
        """The user's own file."""

    @property
    def workload(self) -> str | None:
        """A name in `WORKLOADS`, or the endpoint's examples."""

    @property
    def texts_per_call(self) -> int:
        """Texts in one request."""

    @property
    def seed(self) -> int:
        """Of made-up texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTexts:
    """name: of the workload, for people and records."""

    name: str
    rows: Sequence[Row]

    def document(self) -> dict[str, Any]:
        """What a record says of them."""
        words = sorted(len(row["text"].split()) for row in self.rows)
        return {
            "workload": self.name,
            "texts": len(words),
            "median_words": words[len(words) // 2],
            "longest_words": words[-1],
        }


def check_texts(options: TextOptions) -> None:
    """What can be known before a server is asked.

    Raises `NoTexts`, or `ImpossibleOption` for a call of too many or too few.
    """
    if not 1 <= options.texts_per_call <= MOST_TEXTS_PER_CALL:
        raise ImpossibleOption(
            f"--texts-per-call is {options.texts_per_call}; give 1 to {MOST_TEXTS_PER_CALL}."
        )
    if options.texts:
        read_rows(options.texts)


def choose_texts(options: TextOptions, info: Mapping[str, Any]) -> CallTexts:
    """The texts, told with their lengths; info: what the endpoint says of itself."""
    chosen = _choose(options, info)
    texts = [row["text"] for row in chosen.rows]
    _log.info("%s: %s\n%s", chosen.name, describe_lengths(texts), length_histogram(texts))
    return chosen


def _choose(options: TextOptions, info: Mapping[str, Any]) -> CallTexts:
    if options.texts:
        return CallTexts(name=options.texts.name, rows=read_rows(options.texts))
    own = examples(info)
    # An endpoint that classifies pairs has an answer to nothing else.
    name = options.workload or (_EXAMPLES if any("text_pair" in row for row in own) else "reviews")
    if name == _EXAMPLES:
        return CallTexts(name=name, rows=own)
    texts = WORKLOADS[name](_TEXTS, options.seed)
    return CallTexts(name=name, rows=[{"text": text} for text in texts])
