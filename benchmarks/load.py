"""`miniml bench load`: Locust, headless, against a running endpoint; leaves a `LoadRecord`.

Locust runs in a process of its own (it patches sockets, and its CPU time must be told from ours);
this module only starts it, shows progress, and reads the samples it leaves.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress

from benchmarks import record
from benchmarks.errors import LoadFailed, ServerUnreachable
from benchmarks.options import LoadOptions
from benchmarks.record import LoadRecord, Sample
from benchmarks.workloads import WORKLOADS, Row, describe_lengths, read_rows, request_bodies

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_log = logging.getLogger(__name__)
_POLL_S = 0.2
_WORKLOAD_TEXTS = 2048
# Locust starts its users and, at the end, lets running requests finish: both outside the run time.
_GRACE_S = 60.0


def run_load(options: LoadOptions) -> LoadRecord:
    """Load the endpoint and write the record.

    Raises `ServerUnreachable`, `NoTexts`, or `LoadFailed` when Locust broke or nothing was answered.
    """
    info = fetch_info(options.url)
    rows = _rows(options, info)
    bodies = request_bodies(rows, texts_per_call=options.texts_per_call, seed=options.seed)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    samples = _run_locust(options, bodies)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = LoadRecord(
        scenario=_scenario(options, rows),
        samples=tuple(sample for sample in samples if sample.sent_s >= options.warmup_s),
        duration_s=options.duration_s,
        warmup_s=options.warmup_s,
        client_cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        package_digest=str(info.get("package_digest", "")),
        server=dict(info),
        machine=record.machine(),
        versions=record.versions(),
        commit=record.commit(),
        recorded_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    if not result.latencies_ms:
        raise LoadFailed(
            f"{options.url} answered none of {len(samples)} requests with 200; see its log."
        )
    path = result.write(options.output or record.default_path("load"))
    _log.info("The record with every sample is %s", path)
    return result


def fetch_info(url: str) -> Mapping[str, Any]:
    """What the endpoint says of itself at `/info`. Raises `ServerUnreachable`."""
    try:
        response = httpx.get(f"{url.rstrip('/')}/info", timeout=10.0)
        response.raise_for_status()
        return dict(response.json())
    except (httpx.HTTPError, ValueError) as error:
        raise ServerUnreachable(
            f"No miniml endpoint answers at {url} ({error}); start one with `miniml serve`."
        ) from error


def examples(info: Mapping[str, Any]) -> list[Row]:
    """The texts an endpoint offers as examples: its golden texts."""
    return [{key: str(value) for key, value in row.items() if value} for row in info["examples"]]


def _rows(options: LoadOptions, info: Mapping[str, Any]) -> list[Row]:
    if options.texts:
        return read_rows(options.texts)
    if options.workload:
        texts = WORKLOADS[options.workload](_WORKLOAD_TEXTS, options.seed)
        _log.info("%s: %s", options.workload, describe_lengths(texts))
        return [{"text": text} for text in texts]
    return examples(info)


def _run_locust(options: LoadOptions, bodies: Sequence[bytes]) -> list[Sample]:
    total_s = options.warmup_s + options.duration_s
    with tempfile.TemporaryDirectory(prefix="miniml-load-") as folder:
        bodies_path, samples_path = Path(folder) / "bodies", Path(folder) / "samples.json"
        bodies_path.write_bytes(b"\n".join(bodies))
        log_path = Path(folder) / "locust.log"
        environment = os.environ | {
            "MINIML_BODIES": str(bodies_path),
            "MINIML_SAMPLES": str(samples_path),
        }
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                _command(options, total_s), stdout=log, stderr=log, env=environment
            )
            try:
                _show_progress(process, total_s)
            finally:
                process.kill()
                process.wait()
        if not samples_path.exists():
            tail = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise LoadFailed(f"Locust left no samples: {' '.join(tail) or 'it printed nothing'}")
        rows = json.loads(samples_path.read_text(encoding="utf-8"))
    return [Sample(sent_s=sent, latency_ms=ms, ok=bool(ok)) for sent, ms, ok in rows]


def _command(options: LoadOptions, total_s: float) -> list[str]:
    return [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", options.url.rstrip("/"), "--run-time", f"{total_s:.0f}s"),
        *("--users", str(options.users), "--spawn-rate", str(options.users)),
        *("--loglevel", "WARNING", "--exit-code-on-error", "0"),
    ]


def _show_progress(process: subprocess.Popen[bytes], total_s: float) -> None:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Load test", total=total_s)
        waited_s = 0.0
        while waited_s < total_s + _GRACE_S:
            try:
                process.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                waited_s += _POLL_S
                progress.update(task, completed=min(waited_s, total_s))
            else:
                return
    raise LoadFailed(f"Locust did not stop {_GRACE_S:.0f} s after its time was over.")


def _scenario(options: LoadOptions, rows: Sequence[Row]) -> dict[str, Any]:
    words = sorted(len(row["text"].split()) for row in rows)
    return {
        "workload": _workload(options),
        "texts": len(rows),
        "median_words": words[len(words) // 2],
        "texts_per_call": options.texts_per_call,
        "users": options.users,
        "seed": options.seed,
    }


def _workload(options: LoadOptions) -> str:
    if options.texts:
        return options.texts.name
    return options.workload or "the endpoint's examples"
