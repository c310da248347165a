"""Laws of what is wanted: changes make the next revision, and going back leads to what was."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import MalformedBody, ServingError, WrongInput
from serving.rollout.wanted import (
    Pinned,
    PinnedShare,
    Wanted,
    WantedChange,
    WantedModel,
    changed,
    first,
    read_change,
    read_wanted,
    undone,
    write_wanted,
)

digests = st.integers(0, 15).map(lambda n: f"{n:064x}")
shares = st.builds(PinnedShare, package=st.just("p"), digest=digests, share=st.floats(0, 1))
changes = st.one_of(
    st.builds(WantedChange, package=st.just("p"), digest=digests),
    st.builds(WantedChange, shadow=shares | st.none()),
    st.builds(WantedChange, canary=shares | st.none()),
    st.just(WantedChange(rollback=True)),
)
START = first("reviews", "reviews/1", "0" * 64)


def after(steps: list[WantedChange]) -> list[Wanted]:
    """What was wanted, from the start on; a change that is refused changes nothing."""
    seen = [START]
    for step in steps:
        try:
            seen.append(changed(seen[-1], step))
        except WrongInput:
            seen.append(seen[-1])
    return seen


@given(st.lists(changes, max_size=8))
def test_a_change_is_the_next_revision_or_none(steps: list[WantedChange]) -> None:
    """Revisions go up by one, and stay where nothing is otherwise; written and read they are equal."""
    seen = after(steps)
    for before, now in pairwise(seen):
        assert now.revision - before.revision == (now.models != before.models)
    for each in seen:
        assert read_wanted(write_wanted(each)) == each


@given(st.lists(changes, max_size=8), digests)
def test_going_back_leads_to_what_answered_before(steps: list[WantedChange], digest: str) -> None:
    """A new package and back: the package of before, by hand and by itself alike, and no further."""
    before = after(steps)[-1]
    there = changed(before, WantedChange(package="p", digest=digest))
    if there is before:
        return
    by_hand = changed(there, WantedChange(rollback=True))
    by_itself = undone(there, "reviews", digest, "it failed")

    assert by_itself is not None
    assert by_hand.model().source == by_itself.model().source == before.model().source
    assert (by_hand.revision, by_itself.undone) == (before.revision + 2, "it failed")
    assert undone(by_itself, "reviews", by_itself.model().digest, "again") is None


@given(st.lists(changes, max_size=8))
def test_a_package_is_not_compared_with_itself(steps: list[WantedChange]) -> None:
    """What answers after it was deployed is no shadow of itself."""
    last = after([*steps, WantedChange(package="p", digest="f" * 64)])[-1]
    now = changed(last, WantedChange(shadow=PinnedShare(package="q", digest="e" * 64, share=0.5)))
    deployed = changed(now, WantedChange(package="q", digest="e" * 64))

    assert deployed.model().source == Pinned(package="q", digest="e" * 64)
    assert deployed.model().shadow is None


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"{", MalformedBody),
        (b"\xff", MalformedBody),
        (b"[]", WrongInput),
        (b'{"pakage": "a"}', WrongInput),
        (b'{"package": "a", "digest": "short"}', WrongInput),
        (b'{"package": "a"}', WrongInput),
        (b"{}", WrongInput),
        (b'{"rollback": true}', WrongInput),
        (b'{"rollback": true, "shadow": null}', WrongInput),
        (b'{"name": "other", "shadow": null}', WrongInput),
        (b'{"shadow": {"package": "a", "digest": "%s", "share": 2}}' % (b"0" * 64), WrongInput),
    ],
)
def test_what_is_no_change_is_refused(body: bytes, refusal: type[ServingError]) -> None:
    """With the sentence of what is wrong, and nothing is changed."""
    with pytest.raises(refusal) as caught:
        changed(START, read_change(body))

    assert str(caught.value)


def test_unknown_keys_are_refused() -> None:
    """A document of a later version is not half understood."""
    document = msgspec.to_builtins(START)
    document["models"][0]["weight"] = 1

    with pytest.raises(msgspec.ValidationError):
        read_wanted(msgspec.json.encode(document))


SEVERAL = Wanted(
    revision=0,
    models=(
        *START.models,
        WantedModel(name="topics", package="topics/1", digest=f"{11:064x}"),
        WantedModel(name="reviews/3", package="reviews/3", digest=f"{12:064x}"),
    ),
)


@given(st.lists(changes, max_size=6))
def test_a_change_is_of_one_model(steps: list[WantedChange]) -> None:
    """By its name, and the others stay; who names none means the first."""
    for place, model in enumerate(SEVERAL.models):
        wanted = SEVERAL
        for step in steps:
            named = msgspec.structs.replace(step, name=model.name if place else None)
            with suppress(WrongInput):
                wanted = changed(wanted, named)
        others = [each for each in wanted.models if each.name != model.name]

        assert others == [each for each in SEVERAL.models if each.name != model.name]
        assert [each.name for each in wanted.models] == [each.name for each in SEVERAL.models]
        if place:
            changed_one = wanted.models[place]
            assert (changed_one.canary, changed_one.shadow, changed_one.watch) == (None,) * 3


def test_what_only_the_first_model_can_have_is_refused_of_others() -> None:
    """Canary and shadow; and a model that is called by its version stays, as one package stays one model."""
    beside = PinnedShare(package="p", digest="a" * 64, share=0.5)
    for change, told in (
        (WantedChange(name="topics", canary=beside), "reviews alone"),
        (WantedChange(name="topics", shadow=None), "reviews alone"),
        (WantedChange(name="reviews/3", package="topics/2", digest="a" * 64), "is a version"),
        (WantedChange(name="topics", package="reviews/3", digest=f"{12:064x}"), "already"),
        (
            WantedChange(name="other", package="topics/2", digest="a" * 64),
            "but reviews, topics, reviews/3",
        ),
    ):
        with pytest.raises(WrongInput, match=told):
            changed(SEVERAL, change)
