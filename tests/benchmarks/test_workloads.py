"""A workload sends every text once a pass, in an order that the seed repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import NoTexts
from benchmarks.phrases import QUERY_WORDS, REVIEW_WORDS
from benchmarks.workloads import (
    WORKLOADS,
    Quantiles,
    call_bodies,
    describe_lengths,
    queries,
    read_rows,
    request_bodies,
    reviews,
)


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=50), st.integers(1, 64), st.integers(0, 9)
)
def test_a_pass_sends_every_text_once(texts: list[str], texts_per_call: int, seed: int) -> None:
    """The bodies of one pass hold each text exactly as often as the workload does."""
    bodies = request_bodies(
        [{"text": text} for text in texts], texts_per_call=texts_per_call, seed=seed
    )
    sent: list[str] = []
    for body in bodies:
        document = json.loads(body)
        sent.extend(document.get("texts") or [document["text"]])

    assert sorted(sent) == sorted(texts)
    assert all(b"\n" not in body for body in bodies), "bodies travel one a line"


def test_equal_seeds_send_equal_bodies() -> None:
    """Two runs with one seed are the same load; another seed is another order."""
    rows = [{"text": f"text {i}"} for i in range(100)]
    first = request_bodies(rows, texts_per_call=1, seed=1)

    assert first == request_bodies(rows, texts_per_call=1, seed=1)
    assert first != request_bodies(rows, texts_per_call=1, seed=2)


def test_pairs_stay_together() -> None:
    """In a call of many texts, the second text of a pair stands at the same place."""
    rows = [{"text": f"a{i}", "text_pair": f"b{i}"} for i in range(10)]
    bodies = [json.loads(body) for body in request_bodies(rows, texts_per_call=4, seed=0)]

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
