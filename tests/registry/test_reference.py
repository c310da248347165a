"""Laws of references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadReference
from registry.reference import (
    LatestReference,
    NameReference,
    ObjectReference,
    PathReference,
    Reference,
    check_alias,
    check_name,
    parse,
    registered_name,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True).filter(
    lambda name: name != "latest"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", LatestReference()),
        ("reviews", NameReference(name="reviews")),
        ("reviews@latest", NameReference(name="reviews")),
        ("reviews/3", NameReference(name="reviews", number=3)),
        ("reviews@champion", NameReference(name="reviews", alias="champion")),
        ("models:/reviews/3", NameReference(name="reviews", number=3)),
        ("models:/reviews/latest", NameReference(name="reviews")),
        ("models:/reviews@champion", NameReference(name="reviews", alias="champion")),
        ("models:/reviews.dataset/2", NameReference(name="reviews", number=2, kind="dataset")),
        ("s3://bucket/some/prefix/", ObjectReference(uri="s3://bucket/some/prefix")),
        ("./reviews", PathReference(path="./reviews")),
        ("/tmp/a@b:c", PathReference(path="/tmp/a@b:c")),
        ("~/packages/reviews", PathReference(path="~/packages/reviews")),
        ("build/reviews", PathReference(path="build/reviews")),
        ("reviews.pkg", PathReference(path="reviews.pkg")),
        (".", PathReference(path=".")),
    ],
)
def test_every_form_is_read(text: str, expected: Reference) -> None:
    """Each documented form means what the documentation says."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "@x", "reviews@", "a@b@c", "latest@champion", "latest/3", "with space@x"),
        *("models:/", "models:/reviews/Production", "models:/latest/1", "models:/a.package/1"),
        *("models:/a/latest/3", "models:reviews", "s3://", "s3://bucket", "s3:///x"),
        *("https://host/x", "gs://bucket/x", "a\0b", "file:/x"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    """Nothing is guessed: what has no meaning is refused, in one line with the text itself."""
    with pytest.raises(BadReference) as caught:
        parse(text)

    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_parse_and_print_are_inverse(text: str) -> None:
    """Whatever can be read prints as something that reads the same."""
    try:
        reference = parse(text)
    except BadReference:
        return
    assert parse(str(reference)) == reference


@given(
    name=NAMES,
    number=st.integers(1, 10**9 - 1),
    kind=st.sampled_from(["dataset", "checkpoint"]),
)
def test_named_references_print_and_parse(name: str, number: int, kind: str) -> None:
    """A version reads the same in our form and in MLflow's."""
    expected = NameReference(name=check_name(name), number=number)

    assert parse(str(expected)) == expected
    assert parse(f"models:/{registered_name('package', name)}/{number}") == expected
    in_mlflow = parse(f"models:/{name}.{kind}/{number}")
    assert parse(str(in_mlflow)) == in_mlflow


@pytest.mark.parametrize("name", ["", "latest", "-x", "a.b", "a/b", "a b", "é", "x" * 129, "a\n"])
def test_names_that_could_not_be_referred_to_are_refused(name: str) -> None:
    """Nothing is published under a name that no reference could name."""
    with pytest.raises(BadReference, match="cannot be a name"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "latest", "v3", "7", "a.b", "a@b", "a b"])
def test_aliases_that_mean_something_else_are_refused(alias: str) -> None:
    """An alias cannot look like a number or be the word for the newest."""
    with pytest.raises(BadReference, match="cannot be an alias"):
        check_alias(alias)
