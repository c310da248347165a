"""Lanes: how many texts or batches run at once, on how many threads each.

The number of cores comes from the scheduler's affinity and the cgroup's quota, never from the host.
Lanes of one thread share one ONNX Runtime session, whose `run` is thread-safe, so k lanes hold the
weights once. Lanes of several threads need a session each, for a session has one thread pool.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from serving.engine import Encoding, Engine, Logits, Session
from serving.package import CostGrid

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
    """*lanes.count* worker threads, each running one batch at a time."""

    def __init__(self, engine: Engine, lanes: Lanes) -> None:
        self.lanes = lanes
        self._pad_token_id = engine.package.config.pad_token_id
        self._sessions: SimpleQueue[Session] = SimpleQueue()
        for lane in range(lanes.count):
            shared = lanes.threads == 1 or lane == 0
            path = engine.package.model_path
            self._sessions.put(engine.session if shared else Session(path, threads=lanes.threads))
        self._workers = ThreadPoolExecutor(max_workers=lanes.count, thread_name_prefix="lane")

    def submit(self, encodings: Sequence[Encoding]) -> Future[Logits]:
        """Run one batch when a lane is free; the future holds logits (B, labels)."""
        return self._workers.submit(self._run, encodings)

    def _run(self, encodings: Sequence[Encoding]) -> Logits:
        session = self._sessions.get()  # never waits: as many sessions as workers
        try:
            return session.run(encodings, pad_token_id=self._pad_token_id)
        finally:
            self._sessions.put(session)

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._workers.shutdown(wait=True, cancel_futures=True)


def measure_cost(  # noqa: PLR0913 - every one but the first has a default that is right
    engine: Engine,
    *,
    machine: str,
    threads: int = 1,
    batches: Sequence[int] = (1, 2, 4, 8, 16),
    lengths: Sequence[int] = (8, 16, 32, 64, 128, 256),
    repeats: int = 5,
    budget_s: float = 20.0,
) -> CostGrid:
    """Median milliseconds over batch x length, on this machine, one lane.

    Lengths beyond the model's are dropped. Large cells get fewer repeats when *budget_s* runs out,
    never fewer than one.
    """
    longest = engine.package.config.max_length
    lengths = [length for length in lengths if length < longest] + [longest]
    deadline_s = time.perf_counter() + budget_s
    engine.run([_filler(lengths[0])])  # first run allocates
    rows = []
    for batch in batches:
        cells = []
        for length in lengths:
            times = list(_times_ms(engine, batch, length, repeats, deadline_s))
            cells.append(round(statistics.median(times), 4))
        rows.append(tuple(cells))
    return CostGrid(
        batches=tuple(batches),
        lengths=tuple(lengths),
        ms=tuple(rows),
        threads=threads,
        machine=machine,
    )


def _times_ms(
    engine: Engine, batch: int, length: int, repeats: int, deadline_s: float
) -> Iterator[float]:
    encodings = [_filler(length)] * batch
    for _ in range(repeats):
        start_s = time.perf_counter()
        engine.run(encodings)
        end_s = time.perf_counter()
        yield (end_s - start_s) * 1e3
        if end_s > deadline_s:
            return


def _filler(length: int) -> Encoding:
    # The id hardly matters to the time; 1 exists in every vocabulary.
    return Encoding(ids=(1,) * length, type_ids=(0,) * length)
