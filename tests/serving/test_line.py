"""Laws of the line: everybody once, in order of rank, and the work that stands in it adds up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.line import HANDICAP_S, Line, Priority

NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@dataclass(eq=False)
class Standing:
    """A text in line."""

    priority: Priority
    rank_s: float
    work_ms: float


arrivals = st.lists(
    st.tuples(st.sampled_from(sorted(HANDICAP_S)), st.integers(0, 5), st.integers(1, 100)),
    max_size=40,
)


def stand(arrivals: list[tuple[Priority, int, int]]) -> tuple[Line[Standing], list[Standing]]:
    """A line of texts that came one after the other, some seconds apart."""
    line: Line[Standing] = Line()
    texts, now_s = [], 0.0
    for priority, wait_s, work_ms in arrivals:
        now_s += wait_s
        texts.append(Standing(priority, now_s + HANDICAP_S[priority], float(work_ms)))
        line.add(texts[-1])
    return line, texts


@NO_DEADLINE
@given(arrivals)
def test_the_line_is_in_order_of_rank(arrivals: list[tuple[Priority, int, int]]) -> None:
    """All who came stand in it once, by rank; the first few are its beginning."""
    line, texts = stand(arrivals)
    everybody = line.first(len(texts))

    assert set(everybody) == set(texts)
    assert len(everybody) == len(line) == len(texts)
    assert [text.rank_s for text in everybody] == sorted(text.rank_s for text in texts)
    assert line.first(3) == everybody[:3]


@NO_DEADLINE
@given(arrivals, st.data())
def test_who_leaves_takes_their_work(
    arrivals: list[tuple[Priority, int, int]], data: st.DataObject
) -> None:
    """Removing counts those who stood there, once, and leaves the others as they were."""
    line, texts = stand(arrivals)
    gone = [text for text in texts if data.draw(st.booleans())]
    before = line.first(len(texts))

    assert line.remove(gone) == len(gone)
    assert line.remove(gone) == 0
    assert line.first(len(texts)) == [text for text in before if text not in gone]
    left_ms = sum(text.work_ms for text in texts if text not in gone)
    assert line.work_ms == pytest.approx(left_ms)


def test_bulk_work_waits_its_handicap_and_no_longer() -> None:
    """Who comes within the handicap passes a bulk text; who comes later does not."""
    soon, late = HANDICAP_S["bulk"] - HANDICAP_S["interactive"] - 1, 2
    line, (bulk, passes, waits) = stand(
        [("bulk", 0, 1), ("interactive", int(soon), 1), ("interactive", late, 1)]
    )

    assert line.first(3) == [passes, bulk, waits]
