"""A server's processes are counted whole, once each, from what the kernel says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core.processes import age_s, replica_of
from benchmarks.errors import NoReplica
from benchmarks.processes import process_tree, pss_bytes, read_stat, tree_cpu_s, tree_pss_bytes


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
