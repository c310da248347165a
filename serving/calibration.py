"""Which lanes a package runs best on, tried on the machine that will serve it.

The answer is kept under miniml's home, by package and machine: a replica that starts again there
does not ask again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnxruntime as ort

from registry.home import home
from serving.engine import Engine
from serving.isa import architecture, cpu_features
from serving.lanes import Lanes
from serving.package import Package
from serving.session import Encoding

_log = logging.getLogger(__name__)
# More lanes of fewer threads are taken unless others are clearly faster: they batch less and so
# answer sooner.
_CLEARLY = 1.05
_MOST_THREADS = 8  # short texts gain nothing from more


def calibrated_lanes(package: Package, cores: int, *, budget_s: float = 2.0) -> Lanes:
    """The split of *cores* into lanes and threads that answers most texts a second.

    Measured on the package's golden texts for *budget_s* at most, one graph's loading aside, or
    remembered from the last time.
    """
    candidates = _splits(cores)
    if len(candidates) == 1:
        return candidates[0]
    path = _memory(package, cores)
    if (known := _recall(path)) in candidates:
        return known
    deadline_s = time.perf_counter() + budget_s
    rates: dict[Lanes, float] = {}
    for left, lanes in zip(range(len(candidates), 0, -1), candidates, strict=True):
        now_s = time.perf_counter()
        if now_s < deadline_s or not rates:
            rates[lanes] = _texts_per_s(package, lanes, now_s + (deadline_s - now_s) / left)
    best = next(name for name in rates if rates[name] * _CLEARLY >= max(rates.values()))
    shown = ", ".join(f"{one.count} x {one.threads}: {rate:.0f}" for one, rate in rates.items())
    _log.info("Lanes x threads, texts/s: %s", shown)
    _remember(path, best)
    return best


def _splits(cores: int) -> list[Lanes]:
    """Every way to use *cores* evenly, most lanes first."""
    return [
        Lanes(count=cores // threads, threads=threads)
        for threads in range(1, min(cores, _MOST_THREADS) + 1)
        if cores % threads == 0
    ]


def _texts_per_s(package: Package, lanes: Lanes, deadline_s: float) -> float:
    """All lanes busy with the golden texts, one at a time, until the deadline, and twice at least."""
    engine = Engine(package, threads=lanes.threads, streams=lanes.count)
    golden = package.golden()
    encodings = engine.tokenizer.encode([g.text for g in golden], [g.text_pair for g in golden])
    _lane(engine, encodings[:1], 0.0)  # the first run allocates
    start_s = time.perf_counter()
    with ThreadPoolExecutor(lanes.count) as pool:
        counts = pool.map(lambda _: _lane(engine, encodings, deadline_s), range(lanes.count))
        texts = sum(counts)
    return texts / (time.perf_counter() - start_s)


def _lane(engine: Engine, encodings: Sequence[Encoding], deadline_s: float) -> int:
    for count, encoding in enumerate(itertools.cycle(encodings), 1):
        engine.run([encoding])
        if count > 1 and time.perf_counter() > deadline_s:
            return count
    return 0


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
        part.write_text(json.dumps({"count": lanes.count, "threads": lanes.threads}))
        part.replace(path)
    except OSError as error:  # a read-only home costs the next start its two seconds
        _log.warning("The lanes found cannot be kept (%s)", error)
