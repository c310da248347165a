"""Laws of cutting known texts into batches, and of sharing out machines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cost import GridCost
from serving.offline.cutting import cut
from serving.offline.errors import OfflineError
from serving.offline.workers import WorkerPlan, fleet
from serving.package import CostGrid

LENGTHS = st.lists(st.integers(1, 128), max_size=200).map(lambda found: sorted(found, reverse=True))
# A call costs 1 ms, a token 0.01; and one where company saves nothing.
WITH_CALLS = CostGrid(
    batches=(1, 32), lengths=(1, 128), ms=((1.01, 2.28), (1.32, 41.96)), threads=1, machine="test"
)
WITHOUT = CostGrid(
    batches=(1, 32), lengths=(1, 128), ms=((0.1, 12.8), (3.2, 409.6)), threads=1, machine="test"
)


@given(tokens=LENGTHS, max_batch=st.integers(1, 32), max_tokens=st.integers(1, 4096))
def test_every_text_is_in_one_batch_in_order(
    tokens: list[int], max_batch: int, max_tokens: int
) -> None:
    """Batches follow each other without gaps, and none is larger than allowed; a text alone may be."""
    batches = cut(tokens, GridCost(WITH_CALLS), max_batch=max_batch, max_tokens=max_tokens)

    assert [place for batch in batches for place in range(*batch)] == list(range(len(tokens)))
    for begin, end in batches:
        assert 1 <= end - begin <= max_batch
        assert end - begin == 1 or (end - begin) * tokens[begin] <= max_tokens


@given(tokens=LENGTHS)
def test_company_never_costs_more_than_none(tokens: list[int]) -> None:
    """By the cost model, all batches together take at most what the texts take one by one."""
    for grid in (WITH_CALLS, WITHOUT):
        cost = GridCost(grid)
        batches = cut(tokens, cost, max_batch=32, max_tokens=4096)
        together_ms = sum(cost.ms(end - begin, tokens[begin]) for begin, end in batches)

        assert together_ms <= sum(cost.ms(1, length) for length in tokens) * 1.02 + 1e-9


def test_texts_are_batched_where_it_pays() -> None:
    """Where a call costs much, few calls; where company saves nothing, each text alone."""
    many = cut([8] * 64, GridCost(WITH_CALLS), max_batch=32, max_tokens=4096)
    alone = cut([8] * 64, GridCost(WITHOUT), max_batch=32, max_tokens=4096)

    assert len(many) <= 4
    assert len(alone) == 64


def node(**resources: float) -> dict[str, Any]:
    """As Ray tells one."""
    return {"Alive": True, "Resources": resources}


def test_machines_are_shared_out() -> None:
    """One worker a machine of the smallest size, several on a larger one; none where no core is."""
    nodes = [node(), node(CPU=4.0), node(CPU=10.0), node(CPU=8.0, GPU=2.0)]
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}

    assert fleet([*nodes, dead], gpus=0) == WorkerPlan(count=5, cores=4, gpus=0)
    assert fleet(nodes, gpus=1) == WorkerPlan(count=2, cores=1, gpus=1)
    with pytest.raises(OfflineError, match="no node with a core"):
        fleet([node(), dead], gpus=0)
    with pytest.raises(OfflineError, match="a GPU"):
        fleet([node(CPU=4.0)], gpus=1)
