"""Laws of the token estimate: between what was seen, never beyond what the model reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.token_estimate import TokenEstimate

LONGEST = 256
texts = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, LONGEST)), max_size=400)


@given(texts, st.integers(1, 10**6))
def test_the_estimate_lies_between_what_was_seen(seen: list[tuple[int, int]], chars: int) -> None:
    """Its tokens a character are no fewer and no more than any text had; what was cut does not count."""
    estimate = TokenEstimate(longest=LONGEST)
    for given_chars, found in seen:
        estimate.learn([given_chars], [found])
    ratios = [found / given_chars for given_chars, found in seen if found < LONGEST] or [0.0]

    tokens = estimate.tokens(chars)

    least, most = (max(1, min(round(chars * r), LONGEST)) for r in (min(ratios), max(ratios)))
    assert least - 1 <= tokens <= most + 1  # of rounding


@given(texts, st.integers(1, 10**6), st.integers(0, 10**6))
def test_longer_texts_have_no_fewer_tokens(
    seen: list[tuple[int, int]], chars: int, more: int
) -> None:
    """The estimate never falls with the length."""
    estimate = TokenEstimate(longest=LONGEST)
    estimate.learn(*zip(*seen, strict=True)) if seen else None

    assert estimate.tokens(chars) <= estimate.tokens(chars + more)


def test_another_language_is_learned() -> None:
    """After enough texts of another kind, the estimate is theirs."""
    estimate = TokenEstimate(longest=LONGEST)
    for _ in range(1000):
        estimate.learn([400], [100])
    for _ in range(2000):
        estimate.learn([100], [100])

    assert estimate.tokens(100) > 95
