"""Laws of many publishers at once, and of publishers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from registry import store
from registry.artifact import verify
from registry.backend import connect
from registry.gc import STALE_S

MakeArtifact = Callable[..., Path]
StartPublisher = Callable[..., BaseProcess]
PUBLISHERS, TIMES = 4, 3
# In thousandths of all events of one publish; the end is where version, seal and alias are written.
KILLED_AT = (1, 120, 250, 400, 550, 650, 700, 750, 800, 850, 900, 950, 990)


def test_publishers_at_once_each_get_a_number(
    make_artifact: MakeArtifact, start_publisher: StartPublisher
) -> None:
    """Four processes that begin at once, in an empty home, lose and mix up nothing."""
    folders = [make_artifact(files={"who": str(who).encode()}) for who in range(PUBLISHERS)]
    barrier = multiprocessing.get_context("forkserver").Barrier(PUBLISHERS)
    running = [
        start_publisher(folder=str(folder), name="reviews", times=TIMES, barrier=barrier)
        for folder in folders
    ]
    for process in running:
        process.join()
    versions = store.list_versions(kind="package", name="reviews")

    assert [process.exitcode for process in running] == [0] * PUBLISHERS
    assert sorted(version.number for version in versions) == list(range(1, PUBLISHERS * TIMES + 1))
    assert sorted((store.fetch(version) / "who").read_text() for version in versions) == sorted(
        str(who) for who in range(PUBLISHERS) for _ in range(TIMES)
    )
    assert sum("newest" in version.aliases for version in versions) == 1


@pytest.fixture
def events(
    make_artifact: MakeArtifact, start_publisher: StartPublisher, tmp_path: Path, store_home: Path
) -> int:
    """How many events one undisturbed publish has."""
    count = tmp_path / "count"
    process = start_publisher(folder=str(make_artifact()), name="counted", count_to=str(count))
    process.join()
    assert process.exitcode == 0, store_home
    return int(count.read_text())


def test_a_killed_publisher_leaves_no_half_version(
    make_artifact: MakeArtifact,
    start_publisher: StartPublisher,
    events: int,
    store_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever SIGKILL strikes, what can be found is whole, and publishing again works."""
    folder = make_artifact()
    highest = 0
    outcomes = set()
    for thousandths in KILLED_AT:
        die_at = max(1, events * thousandths // 1000)
        process = start_publisher(folder=str(folder), name="reviews", die_at=die_at)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        seen = store.list_versions(name="reviews")
        outcomes.add(len(seen) > highest)
        for version in seen:
            assert verify(store.fetch(version)) == verify(folder)
        found = store.find(kind="package", name="reviews", recipe="same")
        assert found == (store.resolve("reviews", kind="package") if seen else None)
        again = store.publish(folder, name="reviews", recipe="same")
        assert again.number > max((version.number for version in seen), default=0)
        highest = len(seen) + 1
    assert False in outcomes, "no kill struck before the seal; this test proves nothing"

    monkeypatch.setattr("registry.gc.time.time", lambda now=time.time: now() + 2 * STALE_S)
    kept = store.list_versions()
    store.gc(keep=100)
    artifacts = store_home / "registry" / "artifacts"

    assert {path.name for path in artifacts.iterdir()} == {version.run_id for version in kept}
    assert connect().unsealed() == []
    assert store.list_versions() == kept


@pytest.mark.parametrize("thousandths", [300, 950])
def test_a_kill_during_the_first_creation_breaks_nothing(
    make_artifact: MakeArtifact,
    start_publisher: StartPublisher,
    miniml_home: Path,
    thousandths: int,
) -> None:
    """A database half made is not taken for one; the next publisher makes it."""
    process = start_publisher(folder=str(make_artifact()), name="reviews")
    database = miniml_home / "registry" / "mlflow.part"
    while not (database.exists() and database.stat().st_size > thousandths * 900):
        assert process.is_alive(), "the database was made unseen; this test proves nothing"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    assert store.list_versions() == []
    assert store.publish(make_artifact(), name="reviews").number == 1
