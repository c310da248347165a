"""`miniml bench offline`: rows as a file, the command as a user runs it, the engine around it."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.artifacts import find_folder
from benchmarks.core.ceiling import ask_engine
from benchmarks.errors import BenchmarkError, ImpossibleOption
from benchmarks.offline.options import OfflineBenchOptions
from benchmarks.offline.record import OfflineRecord, OfflineRound, Pass
from benchmarks.processes import tree_cpu_s
from benchmarks.record import default_path
from benchmarks.subject import about_package
from benchmarks.workloads import WORKLOADS
from serving.lanes import usable_cores
from serving.package import Package, open_package

_log = logging.getLogger(__name__)
_BATCHES = (1, 4, 8, 16, 32)
_CHOOSING_TEXTS = 1_000
_LOOK_EVERY_S = 0.5


def run_offline(options: OfflineBenchOptions) -> OfflineRecord:
    """Measure, and write the record.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    counts = (options.rows, options.engine_rows, options.part_rows, options.rounds)
    if min(counts) < 1:
        raise ImpossibleOption(
            "--rows, --engine-rows, --part-rows and --rounds must be at least 1."
        )
    package = open_package(find_folder(options.package, "package"))
    texts = different(WORKLOADS[options.workload](options.rows, options.seed))
    batch = _best_batch(package, texts[:_CHOOSING_TEXTS])
    engine = partial(_engine, package, texts[: options.engine_rows], batch)
    with tempfile.TemporaryDirectory(prefix="miniml-offline-") as work:
        source = _write(texts, Path(work) / "rows.parquet")
        rounds = []
        console = Console(stderr=True)
        for number in track(range(options.rounds), "Rounds", console=console, transient=True):
            target = Path(work) / f"answers-{number}"
            before = engine()
            offline = _offline(package, source, target, options)
            rounds.append(OfflineRound(before=before, offline=offline, after=engine()))
    record = OfflineRecord(
        rounds=rounds,
        scenario=_scenario(options, batch),
        package_digest=package.digest,
        precision=package.config.precision,
        package=about_package(package),
    )
    path = record.write(options.output or default_path("offline"))
    _log.info("The record is %s", path)
    return record


def _scenario(options: OfflineBenchOptions, batch: int) -> dict[str, Any]:
    return {
        "workload": options.workload,
        "rows": options.rows,
        "engine_rows": min(options.engine_rows, options.rows),
        "engine_batch": batch,
        "part_rows": options.part_rows,
        "lanes": usable_cores(),
        "rounds": options.rounds,
        "seed": options.seed,
    }


def different(texts: Sequence[str]) -> list[str]:
    """The same texts, each once: what was there before gets its place as a last word.

    What stands there twice would be computed once, which the engine does not do.
    """
    seen: set[str] = set()
    found = []
    for place, text in enumerate(texts):
        once = text
        while once in seen:
            once = f"{once} {place}"
        seen.add(once)
        found.append(once)
    return found


def _best_batch(package: Package, texts: Sequence[str]) -> int:
    """The batch size at which the bare engine is fastest."""
    if not package.config.batch_invariant:
        return 1
    rates = _rates(package, texts, _BATCHES)
    return max(_BATCHES, key=lambda batch: rates[str(batch)])


def _rates(package: Package, texts: Sequence[str], batches: Sequence[int]) -> dict[str, float]:
    found: dict[str, float] = ask_engine(
        "rates",
        package=package.folder,
        lanes=usable_cores(),
        threads=1,
        texts=texts,
        batches=batches,
    )["rates"]
    return found


def _engine(package: Package, texts: Sequence[str], batch: int) -> Pass:
    def measure() -> float:
        return _rates(package, texts, (batch,))[str(batch)]

    before_s = _children_cpu_s()
    rate, run_s, load = _timed(measure)
    cpu_s = _children_cpu_s() - before_s
    return Pass(
        texts_per_s=round(rate, 2),
        cpu_ms=round(cpu_s / len(texts) * 1e3, 4),
        run_s=round(run_s, 2),
        load_1min=load,
    )


def _offline(package: Package, source: Path, target: Path, options: OfflineBenchOptions) -> Pass:
    command = [sys.executable, "-m", "miniml", "predict", "--json"]
    given = {
        "--package": package.folder,
        "--input": source,
        "--output": target,
        "--part-rows": options.part_rows,
    }
    words = [str(word) for pair in given.items() for word in pair]
    cpu_s = 0.0

    def measure() -> dict[str, Any]:
        nonlocal cpu_s
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            process = subprocess.Popen([*command, *words], stdout=said, stderr=told)  # noqa: S603
            try:
                while process.poll() is None:
                    cpu_s = max(cpu_s, tree_cpu_s(process.pid))
                    time.sleep(_LOOK_EVERY_S)
            finally:  # cut short: what it has started must not go on
                process.terminate()
                process.wait()
            told.seek(0)
            said.seek(0)
            if process.returncode:
                raise BenchmarkError(f"miniml predict failed: {told.read().decode()[-500:]}")
            document: dict[str, Any] = json.loads(said.read().splitlines()[-1])
            return document

    document, run_s, load = _timed(measure)
    if document["new_rows"] != options.rows:
        raise BenchmarkError(f"{document['new_rows']} rows were answered, not {options.rows}.")
    return Pass(
        texts_per_s=document["texts_per_s"],
        cpu_ms=round(cpu_s / options.rows * 1e3, 4),
        run_s=round(run_s, 2),
        load_1min=load,
    )


def _timed(measure: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it says, the seconds it took, and the load average before."""
    load, start_s = round(os.getloadavg()[0], 2), time.perf_counter()
    found = measure()
    return found, time.perf_counter() - start_s, load


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write(texts: Sequence[str], path: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"id": range(len(texts)), "text": list(texts)}), path)
    return path
