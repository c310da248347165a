"""Laws of what is read of a text: all of it in windows, its beginning, or a refusal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine import TextTokenizer
from serving.errors import TextTooLong, WrongInput
from serving.package import Package
from serving.reading import Read, Reader, Reading, Window, put_together
from serving.work import Answer

LENGTH, SPECIAL = 32, 2
WORDS = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the")


@pytest.fixture(scope="module")
def tokenizer_file(
    build: Callable[[Path], Package], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of the tiny package: 32 tokens, of which 2 are special."""
    return build(tmp_path_factory.mktemp("package") / "tiny").tokenizer_path


@contextmanager
def reader_of(path: Path) -> Iterator[Reader]:
    """Closed at the end."""
    reader = Reader(TextTokenizer(path, max_length=LENGTH), path, max_length=LENGTH)
    try:
        yield reader
    finally:
        reader.close()


def read(path: Path, texts: list[str], reading: Reading, pairs: list[str] | None = None) -> Read:
    """All of them, in a loop of its own."""
    with reader_of(path) as reader:
        return asyncio.run(reader.read(texts, pairs, reading))


def words(count: int, seed: int = 0) -> str:
    """So many words, each one token."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))


@pytest.mark.parametrize("stride", [0, 1, 10, 29])
@pytest.mark.parametrize("count", [1, 29, 30, 31, 60, 61, 200])
def test_windows_cover_a_document(tokenizer_file: Path, count: int, stride: int) -> None:
    """Every token in order; neighbours share *stride* of them; each window as the model wants it."""
    document = words(count)
    got = read(tokenizer_file, [document], Reading(window=Window(stride=stride)))
    whole = TextTokenizer(tokenizer_file, max_length=10_000).encode([document])[0].ids[1:-1]
    inner = [encoding.ids[1:-1] for encoding in got.encodings]

    assert got.counts == [len(got.encodings)]
    assert all(len(encoding) <= LENGTH for encoding in got.encodings)
    assert {(e.ids[0], e.ids[-1]) for e in got.encodings} == {(whole_ids(tokenizer_file))}
    rest = [part[stride:] for part in inner[1:]]
    assert (*inner[0], *(token for part in rest for token in part)) == whole
    assert all(one[-stride:] == two[:stride] for one, two in pairwise(inner) if stride)


def whole_ids(path: Path) -> tuple[int, int]:
    """First and last token of any text."""
    ids = TextTokenizer(path, max_length=LENGTH).encode(["good"])[0].ids
    return ids[0], ids[-1]


def test_what_fits_is_read_the_same_every_way(tokenizer_file: Path) -> None:
    """A text as long as the model reads has one window, is not refused, and has the same ids."""
    texts = [words(LENGTH - SPECIAL), "good", words(5)]
    ways = [Reading(), Reading(truncate=False), Reading(window=Window(stride=7))]
    first, *others = [read(tokenizer_file, texts, way).encodings for way in ways]

    assert all(other == first for other in others)


def test_texts_of_different_lengths_keep_their_windows(tokenizer_file: Path) -> None:
    """Each text's windows stand together, in the order of the texts."""
    texts = [words(100, 1), "good", words(31, 2)]
    got = read(tokenizer_file, texts, Reading(window=Window(stride=4)))
    alone = [read(tokenizer_file, [text], Reading(window=Window(stride=4))) for text in texts]

    assert got.encodings == [encoding for one in alone for encoding in one.encodings]
    assert got.counts == [len(one.encodings) for one in alone]


@pytest.mark.parametrize("pair", [None, "warm"])
def test_too_long_is_refused_by_the_token(tokenizer_file: Path, pair: str | None) -> None:
    """Up to the model's length a text passes, one token more is refused with both numbers."""
    room = LENGTH - SPECIAL - (2 if pair else 0)
    pairs = [pair, pair] if pair else None
    fits, too_long = words(room), words(room + 1)
    read(tokenizer_file, ["good", fits], Reading(truncate=False), pairs)

    with pytest.raises(TextTooLong, match=f"Text 1 has {LENGTH + 1} tokens; the model reads 32"):
        read(tokenizer_file, ["good", too_long], Reading(truncate=False), pairs)


@pytest.mark.parametrize("stride", [30, 31, 1000])
def test_a_stride_as_wide_as_a_window_is_refused(tokenizer_file: Path, stride: int) -> None:
    """It would never come to the end; the sentence says what is possible."""
    with pytest.raises(WrongInput, match="from 0 to 29"):
        read(tokenizer_file, ["good"], Reading(window=Window(stride=stride)))


def test_pairs_have_no_windows(tokenizer_file: Path) -> None:
    """Where a pair would be cut nobody can say."""
    with pytest.raises(WrongInput, match="single texts"):
        read(tokenizer_file, ["good"], Reading(window=Window()), ["bad"])


rows = st.lists(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=1)


@given(st.lists(rows, min_size=1, max_size=5), st.sampled_from(["mean", "max"]))
def test_windows_are_put_together_by_label(documents: list[list[list[float]]], how: Any) -> None:
    """Each label's logits over the windows of its own document; one window is as it is."""
    answers = [
        Answer(logits=np.array(row, dtype=np.float32), queue_ms=float(n), infer_ms=1.0)
        for windows in documents
        for n, row in enumerate(windows)
    ]
    got = put_together(answers, [len(windows) for windows in documents], how)

    for answer, windows in zip(got, documents, strict=True):
        wanted = np.array(windows).mean(axis=0) if how == "mean" else np.array(windows).max(axis=0)
        assert answer.logits.dtype == np.float32
        np.testing.assert_allclose(answer.logits, wanted, rtol=1e-5, atol=1e-5)
        assert answer.queue_ms == len(windows) - 1
