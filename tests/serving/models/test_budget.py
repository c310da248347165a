"""Laws of the memory for models: it is kept as far as use allows, and who was used last stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.models.budget import Budget

MOST = 100
names = st.sampled_from("abcde")
steps = st.one_of(
    st.tuples(st.sampled_from(["enter", "leave"]), names, st.just(0)),
    st.tuples(st.just("add"), names, st.integers(1, 150)),
    st.tuples(st.just("room"), names, st.integers(1, 150)),
)


@given(st.lists(steps, max_size=60))
def test_the_budget_is_kept_but_for_who_is_in_use(given_steps: list[tuple[str, str, int]]) -> None:
    """Beyond it all that are loaded are in use, or one is alone; they go in the order of their last use."""
    budget = Budget(MOST)
    loaded: dict[str, int] = {}  # the one unused for the longest first
    users = dict.fromkeys("abcde", 0)
    for step, name, size in given_steps:
        if step == "leave" and not users[name]:
            continue
        if step in ("enter", "leave"):
            getattr(budget, step)(name)
            users[name] += 1 if step == "enter" else -1
        elif step == "add":
            budget.add(name, size)
            loaded[name] = size
        if step != "room" and name in loaded:
            loaded[name] = loaded.pop(name)
        more = size if step == "room" else 0
        going = budget.surplus(more)
        idle = [each for each in loaded if not users[each]]

        assert going == idle[: len(going)]
        for gone in going:
            assert sum(loaded.values()) + more > MOST  # nobody goes who need not
            budget.remove(gone)
            del loaded[gone]
        over = sum(loaded.values()) + more > MOST
        alone = len(loaded) == 1 and not more
        assert not over or alone or all(users[each] for each in loaded)
        assert budget.loaded_bytes == sum(loaded.values())
