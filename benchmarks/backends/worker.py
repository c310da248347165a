"""One measurement in a process of its own: a job as JSON on stdin, what was seen into a file.

    python -m benchmarks.backends.worker RESULT

A fresh process, so that no other backend's threads, memory or settings are in its way, and one that
crashes takes nothing with it.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.backends.peaks import measure_peaks
from benchmarks.backends.variant import LoadJob, Run
from serving.lanes import filler, time_batch
from serving.session import Encoding

TOGETHER = 8  # texts of mixed lengths in a batch, when answers are compared
_MOST_REPEATS = 200


def backend(name: str) -> Any:
    """The file of this room that runs it; with `missing` and `load`."""
    return importlib.import_module(f"benchmarks.backends.{name.replace('-', '_')}")


def _probe(job: Mapping[str, Any]) -> dict[str, Any]:
    """Why each of [backend, precision] cannot run here, or None."""
    return {"reasons": [backend(name).missing(precision) for name, precision in job["wanted"]]}


def _peaks(job: Mapping[str, Any]) -> dict[str, Any]:
    return measure_peaks(job["threads"])


def _answers(job: Mapping[str, Any]) -> dict[str, Any]:
    """Logits of every text alone, and in the company of the next few."""
    run = _load(job)
    encodings = [Encoding(ids=tuple(ids), type_ids=tuple(kinds)) for ids, kinds in job["encodings"]]
    starts = range(0, len(encodings), TOGETHER)
    return {
        "alone": [run([encoding])[0].tolist() for encoding in encodings],
        "together": [
            row for start in starts for row in run(encodings[start : start + TOGETHER]).tolist()
        ],
    }


def _grid(job: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of every run of every cell, all lanes busy; the first is for warming up."""
    start_s = time.perf_counter()
    run = _load(job)
    run([filler(job["lengths"][0])])
    load_s = time.perf_counter() - start_s
    lanes = job["load"]["lanes"]
    cells = []
    for batch in job["batches"]:
        for length in job["lengths"]:
            texts = [filler(length)] * batch
            deadline_s = time.perf_counter() + job["cell_s"]
            # Allocates, records, compiles: counted only where it took all the time there was, and
            # so is large beside what it does but once.
            ms = time_batch(run, texts, lanes, 1, deadline_s)
            if (now_s := time.perf_counter()) < deadline_s:
                ms = time_batch(run, texts, lanes, _MOST_REPEATS, now_s + job["cell_s"])
            cells.append([batch, length, [round(value, 4) for value in ms]])
    return {
        "cells": cells,
        "load_s": round(load_s, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _load(job: Mapping[str, Any]) -> Run:
    run: Run = backend(job["backend"]).load(LoadJob(**job["load"]))
    return run


_TASKS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "probe": _probe,
    "peaks": _peaks,
    "answers": _answers,
    "grid": _grid,
}


def main() -> None:
    """Run the job."""
    job = json.load(sys.stdin)
    Path(sys.argv[1]).write_text(json.dumps(_TASKS[job["task"]](job)), encoding="utf-8")


if __name__ == "__main__":
    main()
