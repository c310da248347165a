"""Laws of models' names: each leads to its own, and who asks for none is told those there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import PackageError, UnknownModel
from serving.models.names import Meant, NamedModel, asked_for, base, find, named_apart
from serving.rollout.wanted import Pinned, PinnedShare, WantedModel

REVIEWS = WantedModel(
    name="reviews",
    package="reviews/4",
    digest="a" * 64,
    canary=PinnedShare(package="reviews/5", digest="b" * 64, share=0.1),
)
OTHERS = [
    ("topics", Pinned(package="topics/1", digest="c" * 64)),
    ("reviews", Pinned(package="reviews/3", digest="d" * 64)),
    ("topics", Pinned(package="topics/2", digest="e" * 64)),
    ("local", Pinned(package="/a/folder", digest="f" * 64)),
]
MODELS = named_apart(REVIEWS, OTHERS)
TAILS = ("", "/infer", "/ready")


def header(said: str, version: str = "") -> NamedModel | None:
    """What these headers ask for."""
    given = [(b"x-model", said.encode()), (b"x-model-version", version.encode())]
    return asked_for(given, "/predict")


def test_the_first_of_a_name_has_it_alone() -> None:
    """Other versions are called by their numbers."""
    names = [model.name for model in MODELS]

    assert names == ["reviews", "topics", "reviews/3", "topics/2", "local"]
    assert [base(name) for name in names] == ["reviews", "topics", "reviews", "topics", "local"]


@pytest.mark.parametrize(
    ("said", "version", "place", "digit"),
    [
        ("reviews", "", 0, ""),
        ("topics", "", 1, ""),
        ("local", "", 4, ""),
        ("reviews@aaaaaa", "", 0, "a"),
        ("reviews/4", "", 0, "a"),
        ("reviews@canary", "", 0, "b"),
        ("reviews", "canary", 0, "b"),
        ("reviews", "b" * 12, 0, "b"),
        ("reviews/3", "", 2, "d"),
        ("reviews", "3", 2, "d"),
        ("reviews@dddddd", "", 2, "d"),
        ("topics/1", "", 1, "c"),
        ("topics/2", "", 3, "e"),
        ("topics@" + "e" * 64, "", 3, "e"),
    ],
)
def test_a_name_leads_to_its_model(said: str, version: str, place: int, digit: str) -> None:
    """By a header and by a path alike, with the digest where a version was named."""
    named = header(said, version)
    assert named
    path = f"/v2/models/{named.name}" + (f"/versions/{named.version}" if named.version else "")
    by_path = [asked_for([(b"x-model", b"else")], path + tail) for tail in TAILS]

    assert find(MODELS, named) == Meant(place=place, digest=digit * 64)
    assert [each and (each.name, each.version, each.tail) for each in by_path] == [
        (named.name, named.version, tail) for tail in TAILS
    ]


versions = st.text(max_size=70) | st.builds(
    lambda digit, count: digit * count, st.sampled_from("abcdef12345"), st.integers(0, 64)
)


@given(st.sampled_from(["reviews", "topics", "local", "other"]), versions)
def test_nobody_gets_a_version_that_he_did_not_name(name: str, version: str) -> None:
    """Whatever comes as a version, the digest found begins with it or the package has its number."""
    try:
        meant = find(MODELS, NamedModel(name=name, version=version))
    except UnknownModel:
        return
    model = MODELS[meant.place]

    assert base(model.name) == name
    assert (
        meant.digest.startswith(version or "-")
        or f"{name}/{version}" in {model.package, "reviews/5"}
        or version in ("", "canary")
    )


@pytest.mark.parametrize("said", ["canary", "reviews@canar", "topics@canary", "topics/3", "/", "@"])
def test_what_is_not_there_is_not_found(said: str) -> None:
    """Nor is a digest by fewer than 6 digits."""
    for each in (said, "reviews@aaaaa"):
        named = header(each)
        assert named
        with pytest.raises(UnknownModel, match=r"here, but reviews@a{12}, topics@c{12}, "):
            find(MODELS, named)


def test_who_names_nothing_asks_the_first() -> None:
    """No header, an empty one, or a version alone, which is a canary's."""
    for headers in ([], [(b"x-model", b"")], [(b"x-model-version", b"canary")]):
        assert asked_for(headers, "/predict") is None
        assert asked_for(headers, "/v2/models/a/b/c") is None


@pytest.mark.parametrize(
    "more",
    [
        [("again", Pinned(package="again/1", digest="a" * 64))],
        [("reviews", Pinned(package="/a/folder", digest="1" * 64))],
        [*OTHERS, ("topics", Pinned(package="topics/2", digest="2" * 64))],
    ],
)
def test_models_that_cannot_be_told_apart_are_refused(more: list[tuple[str, Pinned]]) -> None:
    """One package twice, or one name twice without a version to tell them by."""
    with pytest.raises(PackageError, match=r"already|would be called"):
        named_apart(REVIEWS, more)
