"""Laws of the ledger: one revision of each number, one replica of each turn, the first alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from serving.rollout.ledger import Ledger, Memory, before
from serving.rollout.wanted import WantedChange, changed, first, undone

START = first("reviews", "reviews/1", "0" * 64)


def test_of_changes_at_once_one_is_written() -> None:
    """Eight write the same revision: one may, and all read what it wrote."""
    ledger = Ledger(Memory(), "a")
    wanted = [
        changed(START, WantedChange(package=f"reviews/{n}", digest=f"{n + 1:064x}"))
        for n in range(8)
    ]
    with ThreadPoolExecutor(8) as writers:
        written = list(writers.map(ledger.write, wanted))

    assert written.count(True) == 1
    assert ledger.latest() == wanted[written.index(True)]


def test_the_latest_is_found_though_its_writer_died() -> None:
    """The hint where to look may be old, and old revisions are forgotten; other names are others'."""
    store = Memory()
    ledger, other = Ledger(store, "a"), Ledger(store, "a:b")
    now = START
    for n in range(50):
        now = changed(now, WantedChange(package="p", digest=f"{n + 1:064x}"))
        assert ledger.write(now)
        store.put(
            "miniml:rollout:a:latest:", b"%d" % random.Random(n).randint(max(1, n - 5), n + 1)
        )

        assert ledger.latest() == now
    assert other.latest() is None
    assert sum(key in str(vars(store)) for key in ("revision:1:", "revision:30:")) == 0


def test_who_starts_serves_what_somebody_serves() -> None:
    """Not a revision that no replica could take yet, but one that goes back at once."""
    ledger = Ledger(Memory(), "a")
    one = changed(START, WantedChange(package="p", digest="1" * 64))
    two = changed(one, WantedChange(package="p", digest="2" * 64))
    assert ledger.write(one)
    assert ledger.proven() is None

    ledger.end(1, ledger.claim(1, "x"))
    assert ledger.write(two)
    assert ledger.proven() == one

    back = undone(two, "reviews", "2" * 64, "why")
    assert back
    assert ledger.write(back)
    assert ledger.proven() == back


def test_turns_are_different_and_few_rounds() -> None:
    """Nobody has another's turn; a hundred replicas take a revision in seven rounds, the first alone."""
    ledger = Ledger(Memory(), "a")
    with ThreadPoolExecutor(8) as replicas:
        turns = list(replicas.map(lambda n: ledger.claim(1, str(n)), range(100)))
    assert sorted(turns) == list(range(100))

    rounds = {0: 0}
    for turn in range(1, 100):
        first_to_end = before(turn)
        assert first_to_end is not None
        rounds[turn] = rounds[first_to_end] + 1

    assert before(0) is None
    assert max(rounds.values()) == 6
    assert [list(rounds.values()).count(n) for n in range(3)] == [1, 2, 4]
