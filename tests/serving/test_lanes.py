"""Laws of lanes: cores come from the scheduler and the cgroup; every lane gives the same answer."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from serving.engine import Engine
from serving.lanes import LanePool, Lanes, choose_lanes, measure_cost, usable_cores
from serving.package import Package
from serving.session import Logits

HOST = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    """Put *text* at *path*, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"cpu.max": "100000 100000"}, "0::/", 1),
        ({"cpu.max": "50000 100000"}, "0::/", 1),
        ({"cpu.max": "max 100000"}, "0::/", HOST),
        ({"cpu.max": "max 100000", "a.slice/b/cpu.max": "100000 100000"}, "0::/a.slice/b", 1),
        ({"a.slice/cpu.max": "100000 100000", "a.slice/b/cpu.max": "max 1"}, "0::/a.slice/b", 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", 1),
        (
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            "4:cpu,cpuacct:/x",
            1,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", HOST),
        ({}, "", HOST),
    ],
)
def test_cores_are_what_the_kernel_grants(
    tmp_path: Path, files: dict[str, str], own: str, cores: int
) -> None:
    """The tightest quota of the process's cgroups, v1 or v2, bounds the cores; never below one."""
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text + "\n")
    write(tmp_path / "own", own)

    assert usable_cores(tmp_path / "cgroup", tmp_path / "own") == cores


def test_cores_follow_affinity(tmp_path: Path) -> None:
    """Pinned to one core, a process has one, whatever the host has."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})

        assert usable_cores(tmp_path, tmp_path / "own") == 1
    finally:
        os.sched_setaffinity(0, before)


def test_lanes_fill_the_cores() -> None:
    """One lane a core by default; a number given is kept, and the other fills what is left."""
    assert choose_lanes(4) == Lanes(count=4, threads=1)
    assert choose_lanes(4, threads=2) == Lanes(count=2, threads=2)
    assert choose_lanes(4, count=2) == Lanes(count=2, threads=2)
    assert choose_lanes(2, count=3, threads=3) == Lanes(count=3, threads=3)
    assert choose_lanes(1) == Lanes(count=1, threads=1)


@pytest.mark.parametrize("lanes", [Lanes(count=3, threads=1), Lanes(count=2, threads=2)])
def test_every_lane_gives_the_engines_answer(package: Package, lanes: Lanes) -> None:
    """Whichever lane runs a text, beside whichever others, its logits are the engine's, bit for bit."""
    texts = ["good soup", "bad cold staff", "very warm and not bad", "the"] * 8
    engine = Engine(package)
    pool = LanePool(engine, lanes)
    logits: dict[int, Logits] = {}

    def work(place: int) -> None:
        logits[place] = pool.run(engine.tokenizer.encode([texts[place]]))

    for place in range(len(texts)):
        pool.start(partial(work, place))
    pool.close()

    together = np.concatenate([logits[place] for place in range(len(texts))])
    np.testing.assert_array_equal(together, engine.logits(texts))


def test_cost_is_measured_over_the_whole_grid(package: Package) -> None:
    """Every cell has a positive time, and no length is beyond the model's."""
    grid = measure_cost(
        Engine(package), machine="test", batches=(1, 2), lengths=(4, 8, 999), repeats=2
    )

    assert (grid.batches, grid.lengths) == ((1, 2), (4, 8, 32))
    assert all(ms > 0 for row in grid.ms for ms in row)


def test_measuring_keeps_to_its_budget(package: Package) -> None:
    """With no time left every cell is still measured, once."""
    grid = measure_cost(Engine(package), machine="test", repeats=1000, budget_s=0.0)

    assert all(ms > 0 for row in grid.ms for ms in row)
