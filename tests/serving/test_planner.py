"""Laws of the planner: what it promises for any queue and any cost."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.planner import PATIENCE, WINDOW, Cost, is_hopeless, passed_by, plan

NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@dataclass(frozen=True)
class Affine:
    """A call costs *fixed* ms, and every padded token *each* ms."""

    fixed: float
    each: float

    def ms(self, batch: int, length: int) -> float:
        """Fixed plus padded tokens."""
        return self.fixed + self.each * batch * length


@dataclass
class Waiting:
    """A text that waits."""

    tokens: int
    work_ms: float
    due_s: float = math.inf
    passed_ms: float = 0.0


queues = st.lists(st.integers(1, 512), max_size=60)
costs = st.builds(Affine, st.floats(0, 50), st.floats(0.001, 1))
max_batches = st.integers(1, 16)
lane_counts = st.integers(1, 4)


def line(lengths: Sequence[int], cost: Cost) -> list[Waiting]:
    """Texts of these lengths, none of them due."""
    return [Waiting(tokens=length, work_ms=cost.ms(1, length)) for length in lengths]


def drain(lengths: Sequence[int], cost: Cost, max_batch: int, lanes: int = 1) -> list[list[int]]:
    """The batches, as original indices, in which a queue is worked off."""
    left = list(enumerate(line(lengths, cost)))
    batches = []
    while left:
        waiting = [text for _, text in left]
        chosen = plan(waiting, cost, max_batch=max_batch, lanes=lanes)
        for index, ms in passed_by(waiting, chosen, cost).items():
            waiting[index].passed_ms += ms
        batches.append([left[i][0] for i in chosen])
        left = [pair for i, pair in enumerate(left) if i not in chosen]
    return batches


@NO_DEADLINE
@given(queues, costs, max_batches, lane_counts)
def test_every_text_is_run_once(
    lengths: list[int], cost: Affine, max_batch: int, lanes: int
) -> None:
    """Working off a queue runs every text exactly once, in batches of at most max_batch."""
    batches = drain(lengths, cost, max_batch, lanes)

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= max_batch for batch in batches)


@NO_DEADLINE
@given(queues.filter(len), costs, max_batches, st.integers(1, 1024))
def test_no_batch_is_padded_beyond_its_limit(
    lengths: list[int], cost: Affine, max_batch: int, max_tokens: int
) -> None:
    """Several texts have at most max_tokens with their padding; one may have more, and is run."""
    chosen = plan(line(lengths, cost), cost, max_batch=max_batch, max_tokens=max_tokens)
    padded = len(chosen) * max(lengths[index] for index in chosen)

    assert len(chosen) == 1 or padded <= max_tokens


@NO_DEADLINE
@given(queues.filter(len), costs, max_batches)
def test_the_first_in_line_is_always_next(lengths: list[int], cost: Affine, max_batch: int) -> None:
    """No text starves: whatever its length, a batch contains the one that is first in line."""
    assert 0 in plan(line(lengths, cost), cost, max_batch=max_batch)


@NO_DEADLINE
@given(queues, costs, max_batches, lane_counts)
def test_a_batch_never_costs_more_than_its_texts_alone(
    lengths: list[int], cost: Affine, max_batch: int, lanes: int
) -> None:
    """By the model, every batch is at most as dear as running its texts one by one."""
    for batch in drain(lengths, cost, max_batch, lanes):
        together_ms = cost.ms(len(batch), max(lengths[i] for i in batch))

        assert together_ms <= sum(cost.ms(1, lengths[i]) for i in batch) + 1e-6


@NO_DEADLINE
@given(queues, costs, max_batches)
def test_equal_texts_keep_their_order(lengths: list[int], cost: Affine, max_batch: int) -> None:
    """Of two texts of one length, the earlier is never run in a later batch."""
    place = {i: n for n, batch in enumerate(drain(lengths, cost, max_batch)) for i in batch}

    for i, length in enumerate(lengths):
        assert all(place[i] <= place[j] for j in range(i, len(lengths)) if lengths[j] == length)


@NO_DEADLINE
@given(st.lists(st.tuples(st.integers(1, 512), st.integers(0, 8)), max_size=80), costs, max_batches)
def test_nobody_is_passed_beyond_patience(
    arrivals: list[tuple[int, int]], cost: Affine, max_batch: int
) -> None:
    """While others keep coming, a text is passed by PATIENCE times its own cost and one batch."""
    waiting: list[Waiting] = []
    for length, more in [*arrivals, *[(1, 0)] * len(arrivals)]:
        waiting += line([length] * more, cost)
        chosen = plan(waiting, cost, max_batch=max_batch)
        together_ms = cost.ms(len(chosen), max((waiting[i].tokens for i in chosen), default=1))
        for index, ms in passed_by(waiting, chosen, cost).items():
            waiting[index].passed_ms += ms

            assert (
                waiting[index].passed_ms <= PATIENCE * waiting[index].work_ms + together_ms + 1e-6
            )
        waiting = [text for i, text in enumerate(waiting) if i not in chosen]


@NO_DEADLINE
@given(queues.filter(len), costs, max_batches)
def test_who_passes_owes_no_more_than_the_batch(
    lengths: list[int], cost: Affine, max_batch: int
) -> None:
    """A text is owed what those behind it took; the one right after the batch, nothing."""
    waiting = line(lengths, cost)
    chosen = plan(waiting, cost, max_batch=max_batch)
    owed = passed_by(waiting, chosen, cost)
    together_ms = cost.ms(len(chosen), max(lengths[i] for i in chosen))

    assert owed.keys() == set(range(max(chosen))) - set(chosen)
    assert all(0 < ms <= together_ms + 1e-6 for ms in owed.values())


@NO_DEADLINE
@given(queues.filter(len), max_batches)
def test_what_gains_nothing_is_not_batched(lengths: list[int], max_batch: int) -> None:
    """Where a batch costs as much as its texts alone, each text runs alone: it is answered sooner."""
    cost = Affine(fixed=0, each=1)

    assert plan(line(lengths, cost), cost, max_batch=max_batch) == [0]


def test_similar_lengths_go_together() -> None:
    """A long text is not padded onto short ones while there are others of their length."""
    cost = Affine(fixed=5, each=0.1)

    assert plan(line([8, 400, 8, 400, 8], cost), cost, max_batch=3) == [0, 2, 4]


def test_free_lanes_share_what_waits() -> None:
    """With two lanes free, a batch takes half of the texts: the other lane must not stand idle."""
    cost = Affine(fixed=5, each=0.1)

    assert len(plan(line([8] * 8, cost), cost, max_batch=32)) == 8
    assert len(plan(line([8] * 8, cost), cost, max_batch=32, lanes=2)) == 4
    assert len(plan(line([8], cost), cost, max_batch=32, lanes=2)) == 1


@NO_DEADLINE
@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 500)), min_size=1, max_size=60), costs)
def test_no_batch_is_planned_to_be_late(texts: list[tuple[int, float]], cost: Affine) -> None:
    """Who joins a batch makes no text of it late that would have been in time without."""
    waiting = [
        Waiting(tokens=length, work_ms=cost.ms(1, length), due_s=due_ms / 1e3)
        for length, due_ms in texts
    ]
    chosen = [waiting[i] for i in plan(waiting, cost, max_batch=16)]
    together_ms = cost.ms(len(chosen), max(text.tokens for text in chosen))

    assert len(chosen) == 1 or together_ms / 1e3 <= min(text.due_s for text in chosen)


def test_who_cannot_wait_goes_first() -> None:
    """A text that would be late behind the first in line is run before it; one that can wait is not."""
    cost = Affine(fixed=0, each=0.1)
    long, short = line([100, 10], cost)  # 10 ms and 1 ms
    short.due_s = 0.010
    assert plan([long, short], cost, max_batch=1) == [1]

    short.due_s = 0.012
    assert plan([long, short], cost, max_batch=1) == [0]


def test_deadlines_do_not_starve_who_has_none() -> None:
    """Who was passed by enough goes first, whatever is due."""
    cost = Affine(fixed=0, each=0.1)
    long, short = line([100, 10], cost)
    short.due_s, long.passed_ms = 0.010, 10 * PATIENCE + 1

    assert plan([long, short], cost, max_batch=1) == [0]


def test_hopeless_is_what_cannot_be_in_time() -> None:
    """A text is given up only when even alone and at once it would be late."""
    cost = Affine(fixed=5, each=0.1)  # 10 ms
    text = Waiting(tokens=50, work_ms=10)

    assert not is_hopeless(text, cost, now_s=1.0)
    text.due_s = 1.0101
    assert not is_hopeless(text, cost, now_s=1.0)
    text.due_s = 1.0099
    assert is_hopeless(text, cost, now_s=1.0)


def test_a_decision_looks_at_a_window() -> None:
    """The work of a decision is bounded: it asks nothing of the texts beyond the window."""
    cost = Affine(fixed=5, each=0.1)
    waiting = line([8] * WINDOW, cost)
    beyond: list[Any] = [None] * 10_000

    assert plan([*waiting, *beyond], cost, max_batch=8) == list(range(8))


def test_nothing_waits_nothing_runs() -> None:
    """An empty line gives an empty batch, which passes nobody by."""
    cost = Affine(fixed=1, each=1)

    assert plan([], cost, max_batch=4) == []
    assert passed_by([], [], cost) == {}


@dataclass
class Counting:
    """A cost that counts how often it was asked."""

    cost: Cost
    asked: int = 0

    def ms(self, batch: int, length: int) -> float:
        """As *cost* says."""
        self.asked += 1
        return self.cost.ms(batch, length)


@NO_DEADLINE
@given(
    st.lists(st.tuples(st.integers(1, 512), st.floats(0, 500)), max_size=2 * WINDOW),
    costs,
    max_batches,
)
def test_cost_is_asked_a_bounded_number_of_times(
    texts: list[tuple[int, float]], cost: Affine, max_batch: int
) -> None:
    """However many wait, and however soon they are due, few more costs are asked than texts looked at."""
    counting = Counting(cost)
    waiting = [
        Waiting(tokens=length, work_ms=cost.ms(1, length), due_s=due_ms / 1e3)
        for length, due_ms in texts
    ]
    plan(waiting, counting, max_batch=max_batch)

    assert counting.asked <= min(len(texts), WINDOW) + max_batch + 1


def test_a_deep_line_is_worked_off_in_full_batches() -> None:
    """A line that stays deep does not use up everybody's patience: batches go on saving as at first."""
    cost, chance = Affine(fixed=2, each=0.02), random.Random(0)
    lengths = [min(256, max(4, round(chance.lognormvariate(3, 0.7)))) for _ in range(4000)]
    waiting, coming = line(lengths[:500], cost), line(lengths[500:], cost)
    prices = []  # (ms of a batch, ms of its texts alone)
    while coming:
        chosen = plan(waiting, cost, max_batch=32)
        for index, ms in passed_by(waiting, chosen, cost).items():
            waiting[index].passed_ms += ms
        batch = [waiting[i] for i in chosen]
        together_ms = cost.ms(len(batch), max(text.tokens for text in batch))
        prices.append((together_ms, sum(text.work_ms for text in batch)))
        waiting = [text for i, text in enumerate(waiting) if i not in set(chosen)]
        waiting, coming = waiting + coming[: len(batch)], coming[len(batch) :]

    def price(part: list[tuple[float, float]]) -> float:
        return sum(ms for ms, _ in part) / sum(alone_ms for _, alone_ms in part)

    assert price(prices[len(prices) // 2 :]) <= 1.15 * price(prices[:10])


def test_a_doubtful_gain_is_not_worth_company() -> None:
    """What saves less than 5 % is run alone: the cost model errs by that much."""
    little, clear = Affine(fixed=0.04, each=0.1), Affine(fixed=1, each=0.1)

    assert plan(line([10] * 8, little), little, max_batch=8) == [0]
    assert len(plan(line([10] * 8, clear), clear, max_batch=8)) > 1
