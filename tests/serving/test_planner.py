"""Laws of the planner: what it promises for any queue and any cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.planner import Cost, is_hopeless, plan

NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


@dataclass(frozen=True)
class Affine:
    """A call costs *fixed* ms, and every padded token *each* ms."""

    fixed: float
    each: float

    def ms(self, batch: int, length: int) -> float:
        """Fixed plus padded tokens."""
        return self.fixed + self.each * batch * length


queues = st.lists(st.integers(1, 512), max_size=60)
costs = st.builds(Affine, st.floats(0, 50), st.floats(0.001, 1))
max_batches = st.integers(1, 16)


def drain(lengths: Sequence[int], cost: Cost, max_batch: int) -> list[list[int]]:
    """The batches, as original indices, in which a queue is worked off."""
    left = list(range(len(lengths)))
    batches = []
    while left:
        batch = [left[i] for i in plan([lengths[i] for i in left], cost, max_batch=max_batch)]
        batches.append(batch)
        left = [i for i in left if i not in batch]
    return batches


@NO_DEADLINE
@given(queues, costs, max_batches)
def test_every_text_is_run_once(lengths: list[int], cost: Affine, max_batch: int) -> None:
    """Working off a queue runs every text exactly once, in batches of at most max_batch."""
    batches = drain(lengths, cost, max_batch)

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= max_batch for batch in batches)


@NO_DEADLINE
@given(queues.filter(len), costs, max_batches)
def test_the_oldest_text_is_always_next(lengths: list[int], cost: Affine, max_batch: int) -> None:
    """No text starves: whatever its length, a batch contains the one that waited longest."""
    assert 0 in plan(lengths, cost, max_batch=max_batch)


@NO_DEADLINE
@given(queues, costs, max_batches)
def test_a_batch_never_costs_more_than_its_texts_alone(
    lengths: list[int], cost: Affine, max_batch: int
) -> None:
    """By the model, every batch is at most as dear as running its texts one by one."""
    for batch in drain(lengths, cost, max_batch):
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
@given(queues.filter(len), max_batches)
def test_what_gains_nothing_is_not_batched(lengths: list[int], max_batch: int) -> None:
    """Where a batch costs as much as its texts alone, each text runs alone: it is answered sooner."""
    assert plan(lengths, Affine(fixed=0, each=1), max_batch=max_batch) == [0]


def test_similar_lengths_go_together() -> None:
    """A long text is not padded onto short ones while there are others of their length."""
    lengths = [8, 400, 8, 400, 8]

    assert plan(lengths, Affine(fixed=5, each=0.1), max_batch=3) == [0, 2, 4]


def test_free_lanes_share_what_waits() -> None:
    """With two lanes free, a batch takes half of the texts: the other lane must not stand idle."""
    lengths, cost = [8] * 8, Affine(fixed=5, each=0.1)

    assert len(plan(lengths, cost, max_batch=32)) == 8
    assert len(plan(lengths, cost, max_batch=32, lanes=2)) == 4
    assert len(plan([8], cost, max_batch=32, lanes=2)) == 1


@NO_DEADLINE
@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 500)), min_size=1, max_size=60), costs)
def test_no_batch_is_planned_to_be_late(texts: list[tuple[int, float]], cost: Affine) -> None:
    """A batch ends, by the model, before each of its texts is due, if the oldest could be in time."""
    lengths, due_ms = [length for length, _ in texts], [due for _, due in texts]
    chosen = plan(lengths, cost, max_batch=16, due_ms=due_ms)

    if not is_hopeless(lengths[0], due_ms[0], cost):
        together_ms = cost.ms(len(chosen), max(lengths[i] for i in chosen))
        assert together_ms <= min(due_ms[i] for i in chosen)


def test_hopeless_is_what_cannot_be_in_time() -> None:
    """A text is given up only when even alone and at once it would be late."""
    cost = Affine(fixed=5, each=0.1)

    assert is_hopeless(50, 9.9, cost)
    assert not is_hopeless(50, 10.0, cost)
    assert not is_hopeless(50, math.inf, cost)


def test_nothing_waits_nothing_runs() -> None:
    """An empty queue gives an empty batch."""
    assert plan([], Affine(fixed=1, each=1), max_batch=4) == []
