"""The core benchmark derives what it shows from what it saw, and counts every wrong answer."""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.core.measures import Measure, ceiling, derive
from benchmarks.core.processes import (
    age_s,
    process_tree,
    pss_bytes,
    read_stat,
    replica_of,
    tree_cpu_s,
    tree_pss_bytes,
)
from benchmarks.core.record import CoreRecord
from benchmarks.core.run import run_core
from benchmarks.core.scenarios import count_wrong, split_queue_times
from benchmarks.errors import BenchmarkError, NoReplica
from benchmarks.options import CoreOptions
from benchmarks.wire import Body, Shot, WireRun

rates = st.lists(st.floats(1, 1e4), min_size=3, max_size=3)
SEEN = {
    "ceiling_batch_1_texts_per_s": {"queries": [100.0, 300.0, 100.0]},
    "ceiling_batch_8_texts_per_s": {"queries": [200.0, 200.0, 220.0]},
    "closed_texts_per_s": {"queries": [150.0, 130.0, 110.0]},
    "light_p50_ms": {"queries": [4.0]},
    "alone_median_ms": {"queries": [2.0]},
    "server_cpu_ms": {"queries": [2.5]},
    "engine_cpu_ms": {"queries": [1.75]},
    "exact_texts": {"": [2000.0]},
    "exact_wrong": {"": [1.0]},
}


def line(name: str) -> Measure:
    """The one line of `SEEN` whose name begins so."""
    (found,) = (measure for measure in derive(SEEN) if measure.name.startswith(name))
    return found


def test_shares_are_of_the_same_round() -> None:
    """A share is a round's rate over that round's ceiling, at one batch size for all rounds."""
    assert list(ceiling(SEEN, "queries")) == [200.0, 200.0, 220.0]
    share = line("32 x 1 text, share")
    assert share.values == (0.75, 0.65, 0.5)
    assert (share.median, share.goal, share.held) == (0.65, 0.65, True)


def test_differences_and_goals() -> None:
    """Light load and CPU stand beside the engine's own; a goal not met is not held."""
    assert line("light load, p50 beyond").median == pytest.approx(4.0 - 1.15 * 2.0)
    assert line("light load, p50 beyond").held is False
    assert line("server CPU beyond").values == (0.75,)
    assert line("server CPU beyond").held is False
    assert line("wrong answers of 2000").held is False


def test_what_the_server_does_not_tell_is_missed() -> None:
    """A ratio the server does not report is a line without a verdict; parts not run are no lines."""
    useful = line("useful tokens")
    assert (useful.median, useful.held) == (None, None)
    assert not [measure for measure in derive(SEEN) if "overload" in measure.name]


@given(rates, st.floats(1, 1e4), st.booleans())
def test_held_is_the_median_against_the_goal(
    values: list[float], goal: float, at_most: bool
) -> None:
    """The verdict follows the median alone, on the goal's side."""
    measure = Measure(name="m", workload="", values=tuple(values), goal=goal, at_most=at_most)
    middle = statistics.median(values)

    assert measure.held == (middle <= goal if at_most else middle >= goal)


def test_record_shows_and_keeps_everything(tmp_path: Path) -> None:
    """The file holds every value and the derived lines; the table names each with its verdict."""
    record = CoreRecord(
        seen=SEEN,
        scenario={"rounds": 3},
        lanes={"count": 2, "threads": 1},
        package_digest="d" * 64,
        precision="int8-row-wise",
    )
    document = json.loads(record.write(tmp_path / "core.json").read_text())
    assert document["seen"] == SEEN
    assert len(document["measures"]) == len(record.measures)

    paper = io.StringIO()
    Console(width=200, file=paper).print(record)
    shown = paper.getvalue()
    assert all(measure.name in shown for measure in record.measures)
    assert " yes " in shown
    assert " no " in shown


def wrong(shots: list[Shot], *, tolerance: float = 0.0) -> int:
    """Wrong answers of two bodies of one and two texts, expected a, b, c with scores 0, 1, 2."""
    bodies = [Body(content=b"", texts=1), Body(content=b"", texts=2)]
    expected = [[label, 0.0, [float(i)]] for i, label in enumerate("abc")]
    return count_wrong(shots, bodies, expected, tolerance=tolerance)


def shot(body: int, answer: object, status: int = 200) -> Shot:
    """A shot answered with *answer*."""
    return Shot(
        sent_s=0,
        latency_ms=1,
        status=status,
        texts=body + 1,
        body=body,
        answer=json.dumps(answer).encode(),
    )


def said(label: str, score: float) -> dict[str, object]:
    """An answer with one score."""
    return {"label": label, "score": score, "scores": {"x": score}}


def test_every_wrong_answer_counts() -> None:
    """Missing, twice, swapped, refused, and off by the last bit are wrong; near is not far."""
    first, both = shot(0, said("a", 0.0)), shot(1, [said("b", 1.0), said("c", 2.0)])
    assert wrong([first, both]) == 0
    assert wrong([both, first]) == 0
    assert wrong([first]) == 2
    assert wrong([first, first, both]) == 1
    assert wrong([first, shot(1, [said("c", 2.0), said("b", 1.0)])]) == 2
    assert wrong([shot(0, {"error": {}}, status=429), both]) == 1
    assert wrong([shot(0, {"label": "a", "score": 0.0}), both]) == 1
    near = [first, shot(1, [said("b", 1.0 + 2**-23), said("c", 2.0)])]
    assert wrong(near) == 1
    assert wrong(near, tolerance=1e-5) == 0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=100, unique=True))
def test_longest_tenth_and_rest_are_all(lengths: list[int]) -> None:
    """Every answered shot is in one of the two; the longest tenth is a tenth, of the longest."""
    shots = tuple(
        Shot(sent_s=0, latency_ms=1, status=200, texts=1, body=i, queue_ms=float(length))
        for i, length in enumerate(lengths)
    )
    run = WireRun(shots=shots, duration_s=1, requests=len(shots), load_s=1, client_cpu_s=0)
    long_ms, rest_ms = split_queue_times(run, lengths)

    assert sorted(long_ms + rest_ms) == sorted(map(float, lengths))
    assert len(long_ms) == len(lengths) // 10
    assert not long_ms or min(long_ms) > max(rest_ms)


def fake_process(proc: Path, pid: int, parent: int, command: str, *, ticks: int = 100) -> None:
    """A process with so many ticks of each kind of CPU time, and 7 kB of memory."""
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    numbers = " ".join(["0"] * 9 + [str(ticks)] * 4 + ["20", "0", "1", "0", "500"])
    (folder / "stat").write_text(f"{pid} (a) b (c) S {parent} {numbers} 0 0")
    (folder / "cmdline").write_text(command)
    (folder / "smaps_rollup").write_text("Rss: 9 kB\nPss:  7 kB\nPss_Anon: 5 kB\n")


def test_a_tree_is_all_that_descends(tmp_path: Path) -> None:
    """CPU and memory are of the root and all below it, and of nobody else."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    for pid, parent in ((1, 0), (5, 1), (3, 5), (9, 3), (4, 1)):
        fake_process(tmp_path, pid, parent, "x")
    (tmp_path / "7").mkdir()  # ended while it was looked at
    (tmp_path / "uptime").write_text("20.0 30.0")

    assert sorted(stat.pid for stat in process_tree(5, tmp_path)) == [3, 5, 9]
    assert tree_cpu_s(5, tmp_path) == pytest.approx(3 * 400 * tick_s)
    assert tree_pss_bytes(5, tmp_path) == 3 * 7 * 1024
    assert age_s(process_tree(9, tmp_path)[0], tmp_path) == pytest.approx(20 - 500 * tick_s)
    assert process_tree(77, tmp_path) == []
    assert pss_bytes(77, tmp_path) == 0


def test_the_replica_is_told_from_the_rest(tmp_path: Path) -> None:
    """Only the replica of our deployment counts; without one there is a sentence."""
    fake_process(tmp_path, 1, 0, "miniml serve ServeReplica Encoder")
    fake_process(tmp_path, 2, 1, "ray::ServeController")
    with pytest.raises(NoReplica, match="replica"):
        replica_of(1, tmp_path)

    fake_process(tmp_path, 3, 2, "ray::ServeReplica:miniml:Encoder")
    assert replica_of(1, tmp_path).pid == 3


def test_the_kernels_own_lines_are_read() -> None:
    """This process is what /proc says: its parent, some CPU time, some memory."""
    stat = read_stat(Path("/proc/self/stat").read_text())

    assert (stat.pid, stat.parent) == (os.getpid(), os.getppid())
    assert stat.cpu_s > 0
    assert age_s(stat) >= 0
    assert pss_bytes(stat.pid) > 2**20
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in {found.pid for found in process_tree(os.getpid())}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (CoreOptions(rounds=0), "--rounds"),
        (CoreOptions(only="closed,sideways"), "sideways"),
        (CoreOptions(seconds_s=0), "--seconds"),
        (CoreOptions(texts_count=31), "--texts-count"),
        (CoreOptions(overload_rounds=-1), "--overload-rounds"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(options: CoreOptions, named: str) -> None:
    """An option that cannot be is one sentence that names it."""
    with pytest.raises(BenchmarkError, match=named):
        run_core(options)
