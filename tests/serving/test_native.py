"""Laws of the wire: what is read is what was sent, and every refusal says which field and why."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import (
    BadRequest,
    DeadlineExceeded,
    EngineFailed,
    MalformedBody,
    NotReady,
    Overloaded,
    ServingError,
    TooLarge,
    UnknownPath,
    WrongInput,
    WrongMethod,
)
from serving.protocols.native import read_request, write_error
from serving.settings import ServeSettings

LIMITS = ServeSettings(package="p", max_texts=3, max_text_chars=20)
utf8 = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@NO_DEADLINE
@given(st.lists(utf8, min_size=1, max_size=3), st.booleans())
def test_texts_arrive_as_sent(texts: list[str], all_scores: bool) -> None:
    """Whatever the characters, the texts that are read are those that were written, in order."""
    body = json.dumps({"texts": texts, "all_scores": all_scores}).encode()
    request = read_request(body, text_pair=False, limits=LIMITS)

    assert request.texts == tuple(texts)
    assert (request.pairs, request.single, request.all_scores) == (None, False, all_scores)


@NO_DEADLINE
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """No bytes make the reader fail in another way than by a refusal."""
    with suppress(BadRequest):
        assert read_request(body, text_pair=False, limits=LIMITS).texts


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"{", MalformedBody, "not JSON"),
        (b"", MalformedBody, "not JSON"),
        (b"[1]", MalformedBody, "object"),
        (b'{"text": "\xff"}', MalformedBody, "not JSON"),
        (b'{"text": "\\ud800"}', MalformedBody, "not JSON"),
        ({}, WrongInput, "neither is"),
        ({"text": "a", "texts": ["a"]}, WrongInput, "both are"),
        ({"text": 5}, WrongInput, "text must be a string, not a number"),
        ({"text": None}, WrongInput, "not null"),
        ({"text": ["a"]}, WrongInput, "not a list"),
        ({"text": ""}, WrongInput, "text is empty"),
        ({"text": " \n"}, WrongInput, "text is empty"),
        ({"texts": []}, WrongInput, "texts is empty"),
        ({"texts": "a"}, WrongInput, "must be a list of strings, not a string"),
        ({"texts": ["a", {}]}, WrongInput, r"texts\[1\] must be a string, not an object"),
        ({"texts": ["a", ""]}, WrongInput, r"texts\[1\] is empty"),
        ({"text": "a", "txt": 1}, WrongInput, "'txt'"),
        ({"text": "a", "all_scores": 1}, WrongInput, "all_scores"),
        ({"text": "a", "text_pair": "b"}, WrongInput, "text_pair is not understood"),
        ({"text": "a" * 21}, TooLarge, "21 characters; the limit is 20"),
        ({"texts": ["a"] * 4}, TooLarge, "4 texts; the limit is 3"),
    ],
)
def test_refusals_name_the_field(body: Any, error: type[ServingError], words: str) -> None:
    """Each wrong body has its own error class and a sentence on what was seen."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()

    with pytest.raises(error, match=words):
        read_request(sent, text_pair=False, limits=LIMITS)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": "a"}, "text_pair is needed"),
        ({"texts": ["a"], "text_pair": "b"}, "text_pairs is needed"),
        ({"texts": ["a", "b"], "text_pairs": ["c"]}, "2 texts, but text_pairs 1"),
        ({"text": "a", "text_pair": 5}, "text_pair must be a string"),
    ],
)
def test_a_pair_model_wants_pairs(body: Any, words: str) -> None:
    """A model of two texts refuses one, and lists of different lengths."""
    with pytest.raises(WrongInput, match=words):
        read_request(json.dumps(body).encode(), text_pair=True, limits=LIMITS)


def test_pairs_arrive_as_sent() -> None:
    """Second texts stand beside their first ones."""
    body = json.dumps({"texts": ["a", "b"], "text_pairs": ["c", "d"]}).encode()
    request = read_request(body, text_pair=True, limits=LIMITS)

    assert (request.texts, request.pairs) == (("a", "b"), ("c", "d"))


def test_every_error_has_its_status_and_one_body() -> None:
    """The class decides the status; the body is the same for all."""
    statuses = {
        MalformedBody("m"): 400,
        UnknownPath("m"): 404,
        WrongMethod("m", allow="GET"): 405,
        TooLarge("m"): 413,
        WrongInput("m"): 422,
        Overloaded("m", retry_after_s=1): 429,
        EngineFailed("m"): 500,
        NotReady("m"): 503,
        DeadlineExceeded("m"): 504,
    }

    for error, status in statuses.items():
        assert error.status == status
        assert json.loads(write_error(error)) == {
            "error": {"type": type(error).__name__, "message": "m", "hint": ""}
        }
