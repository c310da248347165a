"""Which lanes a package runs best on, tried on the machine that will serve it.

Tried in a process of its own: what the trials load stays with it when it ends (measured in the
replica: 27 MB for the demo's package). The answer is kept under miniml's home, by package and
machine: a replica that starts again there does not ask again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import onnxruntime as ort

from registry.home import home
from serving.apart import apart
from serving.engine import Engine
from serving.isa import architecture, cpu_features
from serving.lanes import Lanes
from serving.package import Package, open_package

_log = logging.getLogger(__name__)
# More lanes of fewer threads are taken unless others are clearly faster: they batch less and so
# answer sooner.
_CLEARLY = 1.1
_MOST_THREADS = 8  # short texts gain nothing from more
# Two ways take turns, so that what else the machine does hits both: measured one after the other
# beside other work, the slower of two was taken, and remembered.
_PAIRS, _SLICE_S = 9, 0.06
_LOADING_S = 30.0  # for large models on slow disks; a graph for each split of the cores


def calibrated_lanes(package: Package, cores: int, *, budget_s: float = 2.0) -> Lanes:
    """The split of *cores* into lanes and threads that gets most done.

    Measured on the package's golden texts for *budget_s* at most, the graphs' loading aside, or
    remembered from the last time. When it cannot be measured, a lane a core, and not remembered.
    """
    candidates = _splits(cores)
    if len(candidates) == 1:
        return candidates[0]
    path = _memory(package, cores)
    if (known := _recall(path)) in candidates:
        return known
    found = _measured_apart(package, cores, budget_s)
    if found not in candidates:
        return candidates[0]
    _remember(path, found)
    return found


def measured_lanes(package: Package, cores: int, *, budget_s: float) -> Lanes:
    """As `calibrated_lanes`, measured now and in this process."""
    candidates = _splits(cores)
    deadline_s = time.perf_counter() + budget_s
    best = _Trial(package, candidates[0])
    for left, lanes in zip(range(len(candidates) - 1, 0, -1), candidates[1:], strict=True):
        now_s = time.perf_counter()
        if now_s < deadline_s:
            challenger = _Trial(package, lanes)
            if _clearly_faster(challenger, best, now_s + (deadline_s - now_s) / left):
                best = challenger
    return best.lanes


def _measured_apart(package: Package, cores: int, budget_s: float) -> Lanes | None:
    """`measured_lanes` in another process; None, and a warning, when that gives none."""
    try:
        work = partial(_measured, package.folder, cores, budget_s)
        return apart(work, "Trying lanes", timeout_s=budget_s + _LOADING_S)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is another way to lanes
        _log.warning("The lanes could not be measured, a lane a core is taken (%s)", error)
        return None


def _measured(folder: Path, cores: int, budget_s: float) -> Lanes:
    return measured_lanes(open_package(folder), cores, budget_s=budget_s)


def _splits(cores: int) -> list[Lanes]:
    """Every way to use *cores* evenly, most lanes first."""
    return [
        Lanes(count=cores // threads, threads=threads)
        for threads in range(1, min(cores, _MOST_THREADS) + 1)
        if cores % threads == 0
    ]


class _Trial:
    """A package loaded for *lanes*, with its golden texts going round."""

    def __init__(self, package: Package, lanes: Lanes) -> None:
        self.lanes = lanes
        self._engine = Engine(package, threads=lanes.threads, streams=lanes.count)
        golden = package.golden()
        encode = self._engine.tokenizer.encode
        encodings = encode([g.text for g in golden], [g.text_pair for g in golden])
        self._engine.run(encodings[:1])  # the first run allocates
        self._next = itertools.cycle(encodings)

    def tokens_per_s(self, slice_s: float) -> float:
        """All lanes busy, a text at a time, for so long; each runs one at least."""
        start_s = time.perf_counter()
        with ThreadPoolExecutor(self.lanes.count) as pool:
            lanes = range(self.lanes.count)
            tokens = sum(pool.map(lambda _: self._lane(start_s + slice_s), lanes))
        return tokens / (time.perf_counter() - start_s)

    def _lane(self, until_s: float) -> int:
        tokens = 0
        while not tokens or time.perf_counter() < until_s:
            encoding = next(self._next)
            self._engine.run([encoding])
            tokens += len(encoding)
        return tokens


def _clearly_faster(one: _Trial, other: _Trial, deadline_s: float) -> bool:
    """Whether the middle of some pairs says so, one pair at least.

    Asked no longer than until most have said the same: the rest could not change the middle.
    """
    said: list[bool] = []
    while max(map(said.count, (True, False))) <= _PAIRS // 2:
        if said and time.perf_counter() >= deadline_s:
            break
        ratio = one.tokens_per_s(_SLICE_S) / other.tokens_per_s(_SLICE_S)
        _log.info("%s to %s: %.2f times the work", one.lanes, other.lanes, ratio)
        said.append(ratio > _CLEARLY)
    return said.count(True) > said.count(False)


def _memory(package: Package, cores: int) -> Path:
    machine = (architecture(), sorted(cpu_features()), os.cpu_count(), cores, ort.__version__)
    fingerprint = hashlib.sha256(repr((package.digest, machine)).encode()).hexdigest()
    return home() / "cache" / "lanes" / f"{fingerprint[:32]}.json"


def _recall(path: Path) -> Lanes | None:
    try:
        return Lanes(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):  # not there, or not ours: measure
        return None


def _remember(path: Path, lanes: Lanes) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(asdict(lanes)))
        part.replace(path)
    except OSError as error:  # a read-only home costs the next start its two seconds
        _log.warning("The lanes found cannot be kept (%s)", error)
