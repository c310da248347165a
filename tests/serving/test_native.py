"""Laws of the wire: what is read is what was sent, and every refusal says which field and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
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
from serving.package import Package
from serving.protocols.asking import Asked
from serving.protocols.native import Native
from serving.protocols.rendering import write_error
from serving.settings import ServeSettings

LIMITS = ServeSettings(package="p", max_texts=3, max_text_chars=20)
MakePackage = Callable[..., Package]
utf8 = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@pytest.fixture(scope="module")
def single(build: Callable[[Path], Package], tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model of one text, for all laws of this file: Hypothesis wants no fixture a test."""
    return build(tmp_path_factory.mktemp("package") / "tiny")


def read(body: bytes, package: Package) -> Asked:
    """Through the native door."""
    return Native(package, LIMITS).read(body, {})


@NO_DEADLINE
@given(texts=st.lists(utf8, min_size=1, max_size=3))
def test_texts_arrive_as_sent(single: Package, texts: list[str]) -> None:
    """Whatever the characters, the texts that are read are those that were written, in order."""
    asked = read(json.dumps({"texts": texts}).encode(), single)

    assert (list(asked.texts), asked.pairs) == (texts, None)


@NO_DEADLINE
@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_read_or_refused(single: Package, body: bytes) -> None:
    """No bytes make the reader fail in another way than by a refusal."""
    with suppress(BadRequest):
        assert read(body, single).texts


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"{", MalformedBody, "not JSON"),
        (b"", MalformedBody, "not JSON"),
        (b"[1]", WrongInput, "Expected `object`, got `array`"),
        (b'{"text": "\xff"}', MalformedBody, "not JSON"),
        (b'{"text": "\\ud800"}', MalformedBody, "not JSON"),
        ({}, WrongInput, "neither is"),
        ({"text": "a", "texts": ["a"]}, WrongInput, "both are"),
        ({"text": 5}, WrongInput, r"text: Expected `str \| null`, got `int`"),
        ({"text": None}, WrongInput, "neither is"),
        ({"text": ["a"]}, WrongInput, "got `array`"),
        ({"text": ""}, WrongInput, "text is empty"),
        ({"text": " \n"}, WrongInput, "text is empty"),
        ({"texts": []}, WrongInput, "texts is empty"),
        ({"texts": "a"}, WrongInput, r"texts: Expected `array \| null`, got `str`"),
        ({"texts": ["a", {}]}, WrongInput, r"texts\[1\]: Expected `str`, got `object`"),
        ({"texts": ["a", ""]}, WrongInput, r"texts\[1\] is empty"),
        ({"text": "a", "txt": 1}, WrongInput, "`txt`"),
        ({"text": "a", "scores": "some"}, WrongInput, "scores: Invalid enum value 'some'"),
        ({"text": "a", "top_k": 0}, WrongInput, "top_k: Expected `int` >= 1"),
        ({"text": "a", "abstain_below": 1.5}, WrongInput, "abstain_below: .* <= 1"),
        ({"text": "a", "threshold": 0.5}, WrongInput, "threshold is for multi-label"),
        ({"text": "a", "window": {"stride": -1}}, WrongInput, "window.stride: .* >= 0"),
        ({"text": "a", "deadline_ms": 0}, WrongInput, "deadline_ms: .* > 0"),
        ({"text": "a", "priority": "low"}, WrongInput, "priority: Invalid enum value 'low'"),
        ({"text": "a", "text_pair": "b"}, WrongInput, "text_pair is not understood"),
        ({"text": "a" * 21}, TooLarge, "21 characters; the limit is 20"),
        ({"texts": ["a"] * 4}, TooLarge, "4 texts; the limit is 3"),
    ],
)
def test_refusals_name_the_field(
    single: Package, body: Any, error: type[ServingError], words: str
) -> None:
    """Each wrong body has its own error class and a sentence on what was seen."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()

    with pytest.raises(error, match=words):
        read(sent, single)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": "a"}, "text_pair is needed"),
        ({"texts": ["a"], "text_pair": "b"}, "text_pair goes with text; send text_pairs"),
        ({"texts": ["a"]}, "text_pairs is needed"),
        ({"texts": ["a", "b"], "text_pairs": ["c"]}, "2 texts, but text_pairs 1"),
        ({"text": "a", "text_pair": 5}, r"text_pair: Expected `str \| null`"),
    ],
)
def test_a_pair_model_wants_pairs(make_package: MakePackage, body: Any, words: str) -> None:
    """A model of two texts refuses one, and lists of different lengths."""
    with pytest.raises(WrongInput, match=words):
        read(json.dumps(body).encode(), make_package(text_pair=True))


def test_pairs_arrive_as_sent(make_package: MakePackage) -> None:
    """Second texts stand beside their first ones."""
    body = json.dumps({"texts": ["a", "b"], "text_pairs": ["c", "d"]}).encode()
    asked = read(body, make_package(text_pair=True))

    assert (asked.texts, asked.pairs) == (["a", "b"], ["c", "d"])


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
