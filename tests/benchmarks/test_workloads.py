"""A workload sends every text once a pass, in an order that the seed repeats."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import NoTexts
from benchmarks.workloads import (
    WORKLOADS,
    Quantiles,
    call_bodies,
    describe_lengths,
    length_histogram,
    queries,
    read_rows,
    reviews,
    row_bodies,
)
from benchmarks.workloads.lengths import buckets, word_counts
from benchmarks.workloads.making import SAMPLE
from benchmarks.workloads.phrases import QUERY_WORDS, REVIEW_WORDS


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=50), st.integers(1, 64), st.integers(0, 9)
)
def test_a_pass_sends_every_text_once(texts: list[str], texts_per_call: int, seed: int) -> None:
    """The bodies of one pass hold each text exactly as often as the workload does."""
    bodies = row_bodies(
        [{"text": text} for text in texts], texts_per_call=texts_per_call, seed=seed
    )
    sent: list[str] = []
    for body in bodies:
        document = json.loads(body.content)
        sent.extend(document.get("texts") or [document["text"]])

    assert sorted(sent) == sorted(texts)
    assert sum(body.texts for body in bodies) == len(texts)
    assert all(b"\n" not in body.content for body in bodies), "bodies travel one a line"


def test_equal_seeds_send_equal_bodies() -> None:
    """Two runs with one seed are the same load; another seed is another order."""
    rows = [{"text": f"text {i}"} for i in range(100)]
    first = row_bodies(rows, texts_per_call=1, seed=1)

    assert first == row_bodies(rows, texts_per_call=1, seed=1)
    assert first != row_bodies(rows, texts_per_call=1, seed=2)


def test_pairs_stay_together() -> None:
    """In a call of many texts, the second text of a pair stands at the same place."""
    rows = [{"text": f"a{i}", "text_pair": f"b{i}"} for i in range(10)]
    bodies = [json.loads(b.content) for b in row_bodies(rows, texts_per_call=4, seed=0)]

    for body in bodies:
        assert [pair.replace("b", "a") for pair in body["text_pairs"]] == body["texts"]


def test_unicode_line_separators_are_text(tmp_path: Path) -> None:
    """Only a newline ends a line: U+2028 inside a text stays inside it."""
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "one\u2028still one"}, ensure_ascii=False) + "\n")

    assert read_rows(path) == [{"text": "one\u2028still one"}]


@pytest.mark.parametrize("content", [None, "", "\n\n", "[1, 2]", '{"no": "text"}', "{broken"])
def test_bad_files_are_refused_by_name(tmp_path: Path, content: str | None) -> None:
    """A missing, empty or malformed workload is one sentence that names the file."""
    path = tmp_path / "texts.jsonl"
    if content is not None:
        path.write_text(content)

    with pytest.raises(NoTexts, match=r"texts\.jsonl"):
        read_rows(path)


@pytest.mark.parametrize(("name", "lengths"), [("reviews", REVIEW_WORDS), ("queries", QUERY_WORDS)])
@pytest.mark.parametrize("seed", [0, 1])
def test_lengths_are_those_measured(name: str, lengths: Quantiles, seed: int) -> None:
    """At each measured share, the texts' own quantile is the measured one, within a step."""
    words = sorted(len(text.split()) for text in WORKLOADS[name](1000, seed))

    for place, (share, measured) in enumerate(lengths[1:-1], start=1):
        below, above = lengths[place - 1][1], lengths[place + 1][1]
        seen = words[round(share * len(words)) - 1]
        assert abs(seen - measured) <= 1 + 0.1 * (above - below), f"{share}: {seen}, not {measured}"


def test_synthetic_texts_repeat_by_seed() -> None:
    """Equal seeds make equal texts; another seed makes others, of as much work."""
    assert reviews(300, 1) == reviews(300, 1)
    assert queries(300, 1) != queries(300, 2)
    first, second = (sum(len(t.split()) for t in reviews(300, seed)) for seed in (1, 2))
    assert first == pytest.approx(second, rel=0.05)


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(2, 8), st.booleans())
def test_calls_hold_every_text_in_order(texts: list[str], size: int, every: bool) -> None:
    """Bodies say how many texts they hold, hold them in order, and carry the further fields."""
    bodies = call_bodies(texts, texts_per_call=size, all_scores=every)
    documents = [json.loads(body.content) for body in bodies]

    assert [text for document in documents for text in document["texts"]] == texts
    assert [body.texts for body in bodies] == [len(document["texts"]) for document in documents]
    assert all(document["all_scores"] is every for document in documents)
    assert [json.loads(b.content)["text"] for b in call_bodies(texts)] == texts


def test_lengths_are_told_in_one_line() -> None:
    """The line names the middle and the longest."""
    line = describe_lengths(["one", "one two", "one two three"])

    assert "p50 2" in line
    assert "longest 3" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_every_workload_is_as_large_as_asked_and_repeats(name: str, count: int) -> None:
    """As many texts as asked for, none empty, the same for the same seed."""
    texts = WORKLOADS[name](count, 3)

    assert len(texts) == count
    assert all(text.split() for text in texts)
    assert texts == WORKLOADS[name](count, 3)


def test_mixed_is_both_by_turns() -> None:
    """Every second text of the mixture is a review, the others are queries."""
    texts = WORKLOADS["mixed"](601, 5)

    assert texts[::2] == reviews(301, 5)
    assert texts[1::2] == queries(300, 6)


def test_long_is_the_longest_twentieth() -> None:
    """Long texts have the lengths of those reviews that nineteen in twenty are shorter than."""
    lengths = dict(REVIEW_WORDS)
    words = word_counts(WORKLOADS["long"](500, 1))

    assert min(words) >= lengths[0.95]
    assert lengths[0.99] < max(words) <= lengths[1.00]
    assert sorted(words)[400] == pytest.approx(lengths[0.99], rel=0.05)


def test_repeated_follows_zipf() -> None:
    """The text asked most is asked about twice as often as the second and n times as the n-th."""
    texts = WORKLOADS["repeated"](50_000, 2)
    counts = sorted(Counter(texts).values(), reverse=True)

    assert len(counts) <= 512
    for place in (1, 2, 5, 10):
        expected = 50_000 / place / sum(1 / n for n in range(1, 513))
        assert counts[place - 1] == pytest.approx(expected, rel=0.1)


def test_reviews_are_made_of_the_embedded_sample() -> None:
    """Every word of a made-up review stands in the sample of real sentences."""
    sample = {word for row in read_rows(SAMPLE) for word in row["text"].split()}

    assert {word for text in reviews(100, 0) for word in text.split()} <= sample


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_the_histogram_counts_every_text_once(words: list[int]) -> None:
    """Buckets follow one another without a gap, hold every text, and each is a line."""
    found = buckets(words)
    lines = length_histogram([" ".join(["w"] * count) for count in words]).splitlines()

    assert sum(count for _, _, count in found) == len(words)
    assert len(lines) == len(found)
    for low, high, count in found:
        assert count == sum(low <= length <= high for length in words)
    for (_, high, _), (low, _, _) in pairwise(found):
        assert low == high + 1
    assert max(line.count("█") for line in lines) == 40, "the most frequent has the whole width"
