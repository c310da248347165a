"""Lanes: how many texts or batches run at once, on how many threads each.

The number of cores comes from the scheduler's affinity and the cgroup's quota, never from the host.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serving.engine import Engine
from serving.package import CostGrid
from serving.session import Encoding, Logits

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """count lanes of *threads* threads each."""

    count: int
    threads: int


def usable_cores(cgroup: Path = _CGROUP, own_groups: Path = _OWN_GROUPS) -> int:
    """Cores this process may use: affinity, cut by the tightest CPU quota above it; at least 1.

    cgroup: where cgroups are mounted, v1 or v2. own_groups: the process's place in them.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quotas = (_quota_cores(folder) for folder in _own_folders(cgroup, own_groups))
    return max(1, math.floor(min([cores, *filter(None, quotas)])))


def _own_folders(cgroup: Path, own_groups: Path) -> Iterator[Path]:
    """Every folder whose CPU quota binds this process: its own group's and all above, v2 and v1."""
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    places = {"": "/"}  # controller list -> group; the empty one is v2
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            places[controllers] = group
    for controllers, group in places.items():
        parts = Path(group.lstrip("/")).parts
        # In a container the group's path may not be mounted; what is absent binds nothing.
        for mount in (cgroup, cgroup / "cpu", *([cgroup / controllers] if controllers else [])):
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _quota_cores(folder: Path) -> float | None:
    """The quota set in one cgroup folder, in cores; None when it sets none."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else float(quota) / float(period)


def choose_lanes(cores: int, *, count: int | None = None, threads: int | None = None) -> Lanes:
    """One lane a core, one thread each, unless told otherwise.

    On 2 cores 2 x 1 beats 1 x 2 on short texts: two small matrix products lose less to each other
    than one does to splitting.
    """
    threads = threads or max(1, cores // count if count else 1)
    return Lanes(count=count or max(1, cores // threads), threads=threads)


class LanePool:
    """*lanes.count* worker threads, each running one batch at a time on a stream of the engine."""

    def __init__(self, engine: Engine, lanes: Lanes) -> None:
        self.lanes = lanes
        self._engine = engine
        self._workers = ThreadPoolExecutor(max_workers=lanes.count, thread_name_prefix="lane")

    def start(self, work: Callable[[], None]) -> None:
        """Run *work* on a lane's thread. Raises RuntimeError after `close`."""
        self._workers.submit(work)

    def run(self, encodings: Sequence[Encoding]) -> Logits:
        """Logits (B, labels) of one batch; on the caller's thread."""
        return self._engine.run(encodings)

    def repair(self) -> None:
        """Load the graph afresh; batches that run on the old one end there."""
        self._engine.reopen()

    def close(self) -> None:
        """Finish what was started."""
        self._workers.shutdown()


def measure_cost(  # noqa: PLR0913 - every one but the first has a default that is right
    engine: Engine,
    *,
    machine: str,
    lanes: Lanes | None = None,
    batches: Sequence[int] = (1, 2, 4, 8, 16),
    lengths: Sequence[int] = (8, 16, 32, 64, 128, 256),
    repeats: int = 5,
    budget_s: float = 20.0,
) -> CostGrid:
    """Median milliseconds over batch x length, on this machine, of one lane while all are busy.

    Lengths beyond the model's are dropped. All cells take turns, so that what else the machine does
    slows small and large ones alike: the planner reads their ratio. *repeats* times, or fewer when
    *budget_s* runs out, never fewer than one.
    """
    lanes = lanes or Lanes(count=1, threads=1)
    longest = engine.package.config.max_length
    lengths = [length for length in lengths if length < longest] + [longest]
    deadline_s = time.perf_counter() + budget_s
    engine.run([filler(lengths[0])])  # first run allocates
    cells: dict[tuple[int, int], list[float]] = {
        (batch, length): [] for batch in batches for length in lengths
    }
    for _ in range(repeats):
        for (batch, length), times in cells.items():
            if not times or time.perf_counter() < deadline_s:
                texts = [filler(length)] * batch
                times.extend(time_batch(engine.run, texts, lanes.count, 1, deadline_s))
    rows = [
        tuple(round(statistics.median(cells[batch, length]), 4) for length in lengths)
        for batch in batches
    ]
    return CostGrid(
        batches=tuple(batches),
        lengths=tuple(lengths),
        ms=tuple(rows),
        threads=lanes.threads,
        machine=machine,
    )


def time_batch(
    run: Callable[[Sequence[Encoding]], object],
    batch: Sequence[Encoding],
    streams: int,
    repeats: int,
    deadline_s: float,
) -> list[float]:
    """Milliseconds of each of at most *repeats* runs on each of *streams* threads at once.

    A thread stops when `time.perf_counter` passes *deadline_s*, after one run at least.
    """

    def lane(_: int) -> list[float]:
        times = []
        for _ in range(repeats):
            start_s = time.perf_counter()
            run(batch)
            end_s = time.perf_counter()
            times.append((end_s - start_s) * 1e3)
            if end_s > deadline_s:
                break
        return times

    if streams == 1:
        return lane(0)
    with ThreadPoolExecutor(streams) as pool:
        return [ms for times in pool.map(lane, range(streams)) for ms in times]


def filler(length: int) -> Encoding:
    """A text of so many tokens. Which ones hardly matters to the time; 1 is in every vocabulary."""
    return Encoding(ids=(1,) * length, type_ids=(0,) * length)
