"""Laws of agreement: replicas' counts add up to what one would have counted, and shares are shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from serving.agreement import (
    Agreed,
    Counts,
    Opinion,
    Times,
    interval,
    said_by,
    together,
    wilson,
)

OURS, THEIRS = ("a", "b", "c"), ("b", "c", "d")
MS = st.none() | st.floats(0.01, 1e4)


def opinions(labels: tuple[str, ...], *, several: bool) -> st.SearchStrategy[Opinion]:
    """Of a package that knows *labels*, and gives one of them or any number."""
    given_labels = (
        st.lists(st.sampled_from(labels), unique=True).map(tuple)
        if several
        else st.sampled_from(labels).map(lambda label: (label,))
    )
    scores = st.lists(st.floats(0, 1), min_size=len(labels), max_size=len(labels))
    return st.builds(
        lambda given, scores, ms: Opinion(
            given=given, scores=dict(zip(labels, scores, strict=True)), infer_ms=ms
        ),
        given_labels,
        scores,
        MS,
    )


PAIRS = st.booleans().flatmap(
    lambda several: st.lists(
        st.tuples(opinions(OURS, several=several), opinions(THEIRS, several=several)), max_size=12
    )
)


def counted(pairs: list[tuple[Opinion, Opinion]]) -> Counts:
    """All of them, one after the other."""
    counts = Counts()
    for pair in pairs:
        counts.add(*pair)
    return counts


def shifts(said: Agreed) -> list[float]:
    """Of every label that both know; sums may round otherwise when they are made in another order."""
    return [
        each for label in said.labels for each in (label.shift, label.moved) if each is not None
    ]


def texts(said: Agreed) -> list[tuple[str, int, int, int]]:
    """Of every label."""
    return [(each.label, each.champion, each.candidate, each.both) for each in said.labels]


@settings(max_examples=25)
@given(PAIRS, st.integers(0, 12))
def test_replicas_together_say_what_one_would(
    pairs: list[tuple[Opinion, Opinion]], at: int
) -> None:
    """Wherever texts are split between two, their counts put together are those of all at once."""
    once = said_by(counted(pairs))
    parts = said_by(together([counted(pairs[:at]), counted(pairs[at:])]))

    assert texts(once) == texts(parts)
    assert shifts(once) == pytest.approx(shifts(parts), abs=1e-9)
    for name in ("texts", "agreeing", "agreement", "disagreements"):
        assert getattr(once, name) == getattr(parts, name)
    assert once.champion_infer_ms == parts.champion_infer_ms
    assert once.candidate_infer_ms == parts.candidate_infer_ms


@settings(max_examples=25)
@given(PAIRS)
def test_every_text_is_counted_once(pairs: list[tuple[Opinion, Opinion]]) -> None:
    """Agreeing and differing texts are all there are; of each label, those that both gave are of both."""
    counts = counted(pairs)
    said = said_by(counts)
    differing = [(ours.given, theirs.given) for ours, theirs in pairs if ours.given != theirs.given]

    assert said.texts == len(pairs)
    assert said.agreeing == sum(set(a.given) == set(b.given) for a, b in pairs)
    if all(len(ours.given) == len(theirs.given) == 1 for ours, theirs in pairs):
        assert sum(each.texts for each in said.disagreements) == len(differing)
    for label in said.labels:
        assert label.champion == sum(label.label in ours.given for ours, _ in pairs)
        assert label.candidate == sum(label.label in theirs.given for _, theirs in pairs)
        assert 0 <= label.both <= min(label.champion, label.candidate)
        assert (label.shift is None) == (label.label in "ad"), "only one of them knows it"


@settings(max_examples=25)
@given(PAIRS)
def test_a_package_agrees_with_itself(pairs: list[tuple[Opinion, Opinion]]) -> None:
    """On every text and label, and no probability has moved."""
    said = said_by(counted([(ours, ours) for ours, _ in pairs]))

    assert said.agreeing == said.texts == len(pairs)
    assert said.disagreements == ()
    assert {(label.shift, label.moved) for label in said.labels} <= {(0, 0)}
    assert all(label.both == label.champion == label.candidate for label in said.labels)


@settings(max_examples=25)
@given(PAIRS)
def test_sides_can_be_changed(pairs: list[tuple[Opinion, Opinion]]) -> None:
    """The candidate beside the champion agrees as the champion beside the candidate; shifts turn."""
    there = said_by(counted(pairs))
    back = said_by(counted([(theirs, ours) for ours, theirs in pairs]))
    turned = {label.label: label for label in back.labels}

    assert there.agreement == back.agreement
    for label in there.labels:
        other = turned[label.label]
        assert (label.champion, label.both) == (other.candidate, other.both)
        if label.shift is not None:
            assert other.shift == pytest.approx(-label.shift, abs=1e-9)
            assert other.moved == pytest.approx(label.moved, abs=1e-9)


@given(st.integers(0, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_an_interval_holds_its_share(of: tuple[int, int]) -> None:
    """Within 0 and 1, around the share, the mirror of its opposite, and as SciPy has it."""
    count, total = of
    low, high = wilson(count, total)

    assert 0 <= low <= high <= 1
    other_low, other_high = wilson(total - count, total)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-9)
    if total:
        found = binomtest(count, total).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((found.low, found.high), abs=1e-4)
        said = interval(count, total)
        assert said is not None
        assert said.low <= said.share <= said.high
    else:
        assert interval(count, total) is None


# Hundredths, since a logarithm does not tell a power of two from its next neighbour.
@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 10**7).map(lambda n: n / 100), min_size=1, max_size=50),
    st.floats(0.01, 1),
)
def test_a_percentile_is_a_time_that_was_seen(values: list[float], share: float) -> None:
    """The nearest rank, to 2.2 %; and as many are up to a power of two as were."""
    times = Times()
    for value in values:
        times.add(value)
    rank = sorted(values)[max(1, math.ceil(share * len(values))) - 1]

    assert times.percentile_ms(share) == pytest.approx(rank, rel=0.0222)
    assert times.total_ms == pytest.approx(sum(values))
    for power in range(-8, 18):
        assert times.up_to(power) == sum(value <= 2**power for value in values)
