"""From texts to encodings: as much of each as the caller wants read, and never on the event loop.

A document longer than the model is cut, refused, or read in windows whose logits are put together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from tokenizers import Tokenizer

from serving.encoding import Encoding
from serving.engine import TextTokenizer
from serving.errors import TextTooLong, WrongInput
from serving.work import Answer

T = TypeVar("T")
# Up to here tokenizing takes less time than the hop to a thread and back.
_INLINE_CHARS = 8000
Aggregate = Literal["mean", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Read a document in windows as long as the model takes.

    stride: tokens that neighbours share, as in Hugging Face tokenizers. aggregate: of each label's
    logits over the windows.
    """

    stride: int = 0
    aggregate: Aggregate = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How much of a text is read. truncate: cut what is too long, else refuse it."""

    truncate: bool = True
    window: Window | None = None


CUT = Reading()  # what nobody said otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Encodings, of all texts in order, and how many of them each text has; None is one each."""

    encodings: list[Encoding]
    counts: list[int] | None = None


class Reader:
    """Encodes texts: short ones at once, others on a thread of its own."""

    def __init__(self, tokenizer: TextTokenizer, path: Path, *, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._path = path
        self._max_length = max_length
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        self.cpu_s = 0.0

    async def read(
        self, texts: Sequence[str], pairs: Sequence[str] | None, reading: Reading
    ) -> Read:
        """Every text, as *reading* says. Raises `TextTooLong`, `WrongInput` for a stride too wide."""
        if window := reading.window:
            if pairs:
                raise WrongInput("window is for single texts; this model compares two.")
            whole = await self._aside(lambda: self._windows(texts, window.stride))
            encodings = [encoding for windows in whole for encoding in windows]
            return Read(encodings=encodings, counts=[len(windows) for windows in whole])
        if sum(map(len, texts)) + sum(map(len, pairs or ())) <= _INLINE_CHARS:
            encodings = self._timed(lambda: self._tokenizer.encode(texts, pairs))
        else:
            encodings = await self._aside(lambda: self._tokenizer.encode(texts, pairs))
        if not reading.truncate:
            await self._refuse_cut(texts, pairs, encodings)
        return Read(encodings=encodings)

    def close(self) -> None:
        """Free the thread, and let go of the tokenizers."""
        self._thread.shutdown()
        del self._tokenizer
        self.__dict__.pop("_whole", None)

    def _timed(self, work: Callable[[], T]) -> T:
        began_s = time.thread_time()
        try:
            return work()
        finally:
            self.cpu_s += time.thread_time() - began_s

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, work)

    @cached_property
    def _whole(self) -> Tokenizer:
        """A second tokenizer, of whole documents; used on its thread only, its truncation varies."""
        tokenizer = Tokenizer.from_file(str(self._path))
        tokenizer.no_padding()
        return tokenizer

    def _windows(self, texts: Sequence[str], stride: int) -> list[list[Encoding]]:
        special = self._whole.num_special_tokens_to_add(is_pair=False)
        if not 0 <= stride < self._max_length - special:
            widest = self._max_length - special - 1
            raise WrongInput(f"window.stride must be from 0 to {widest} tokens for this model.")
        self._whole.enable_truncation(self._max_length, stride=stride)
        return [
            [
                Encoding(ids=tuple(raw.ids), type_ids=tuple(raw.type_ids))
                for raw in (first, *first.overflowing)
            ]
            for first in self._whole.encode_batch(list(self._tokenizer.canonical(texts)))
        ]

    async def _refuse_cut(
        self, texts: Sequence[str], pairs: Sequence[str] | None, encodings: Sequence[Encoding]
    ) -> None:
        """Raise `TextTooLong` for the first text of which something was left out."""
        for place, encoding in enumerate(encodings):
            if len(encoding) == self._max_length:  # else nothing was cut
                pair = pairs[place] if pairs else None
                tokens = await self._aside(lambda: self._tokens(texts[place], pair))  # noqa: B023
                if tokens > self._max_length:
                    raise TextTooLong(
                        f"Text {place} has {tokens} tokens; the model reads {self._max_length}.",
                        hint="Shorten it, let it be cut, or ask for a window over it.",
                    )

    def _tokens(self, text: str, pair: str | None) -> int:
        self._whole.no_truncation()
        given = self._tokenizer.canonical([text] if pair is None else [text, pair])
        whole = given[0] if pair is None else (given[0], given[1])
        return len(self._whole.encode_batch([whole])[0].ids)


def put_together(
    answers: Sequence[Answer], counts: Sequence[int] | None, aggregate: Aggregate
) -> list[Answer]:
    """One answer a text from those of its windows: logits aggregated, the slowest window's times."""
    assert counts, "windows without their numbers; this is a bug"
    return [_joined(windows, aggregate) for windows in _groups(answers, counts)]


def _groups(answers: Sequence[Answer], counts: Sequence[int]) -> Iterator[Sequence[Answer]]:
    start = 0
    for count in counts:
        yield answers[start : start + count]
        start += count


def _joined(windows: Sequence[Answer], aggregate: Aggregate) -> Answer:
    if len(windows) == 1:
        return windows[0]
    rows = np.stack([answer.logits for answer in windows])
    wide = rows.max(axis=0) if aggregate == "max" else rows.astype(np.float64).mean(axis=0)
    return replace(
        windows[0],
        logits=wide.astype(np.float32),
        queue_ms=max(answer.queue_ms for answer in windows),
        infer_ms=max(answer.infer_ms for answer in windows),
        ran=tuple(dict.fromkeys(run for answer in windows for run in answer.ran)),
    )


def characters(texts: Sequence[str], pairs: Sequence[str] | None) -> list[int]:
    """Of each text, with its pair."""
    return [len(a) + len(b) for a, b in zip(texts, pairs or repeat(""), strict=False)]
