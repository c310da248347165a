"""What the bare engine can do, in a process of its own: a job as JSON on stdin, results into a file.

A fresh process, so that neither a server's nor a client's memory, threads or interpreter lock is in
its way. It knows neither HTTP nor the server.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from benchmarks.errors import EngineBroke
from serving.engine import Engine
from serving.package import open_package
from serving.session import Encoding

_CHUNK = 32  # texts tokenized at once
_WARM_UP_TEXTS = 32


def ask_engine(  # noqa: PLR0913 - the settings of a job, all by name
    task: Literal["rates", "alone", "answers"],
    *,
    package: Path,
    lanes: int,
    threads: int,
    texts: Sequence[str],
    batches: Sequence[int] = (1,),
    least_s: float = 0.0,
) -> dict[str, Any]:
    """Run one task in a fresh process. Raises `EngineBroke` with its last words.

    rates: {"rates": {batch: texts/s}}, all lanes busy, all texts again until *least_s* seconds are
    over. alone: {"times_ms": of each text on one lane, tokenizing included, "cpu_ms": mean of a
    text}. answers: {"answers": [[label, score, scores], ...]}, each text alone.
    """
    job = {
        "task": task,
        "package": str(package),
        "lanes": lanes,
        "threads": threads,
        "texts": list(texts),
        "batches": list(batches),
        "least_s": least_s,
    }
    with tempfile.TemporaryDirectory(prefix="miniml-engine-") as folder:
        result_path = Path(folder) / "result.json"
        result = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.core.ceiling", str(result_path)],
            input=json.dumps(job).encode(),
            capture_output=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        if result.returncode != 0:
            tail = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise EngineBroke(f"The bare engine failed: {' '.join(tail) or 'it said nothing'}")
        return dict(json.loads(result_path.read_bytes()))


def _main() -> None:
    job = json.load(sys.stdin)
    lanes = job["lanes"] if job["task"] == "rates" else 1
    engine = Engine(open_package(Path(job["package"])), threads=job["threads"], streams=lanes)
    texts = job["texts"]
    list(engine.predict(texts[:_WARM_UP_TEXTS]))
    found: dict[str, Any]
    if job["task"] == "rates":
        found = {"rates": {b: _rate(engine, job, batch=b) for b in job["batches"]}}
    elif job["task"] == "alone":
        found = _alone(engine, texts)
    else:
        found = {"answers": [[p.label, p.score, p.scores] for p in engine.predict(texts)]}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


def _rate(engine: Engine, job: Mapping[str, Any], *, batch: int) -> float:
    """Texts/s over as many passes as the job's time wants; one at least."""
    texts, rates, began_s = job["texts"], list[float](), time.perf_counter()
    while not rates or time.perf_counter() - began_s < job["least_s"]:
        rates.append(offline_rate(engine, texts, batch=batch, lanes=job["lanes"]))
    return statistics.harmonic_mean(rates)  # of equal passes: all their texts over all their time


def offline_rate(engine: Engine, texts: Sequence[str], *, batch: int, lanes: int) -> float:
    """Texts/s from text to logits when all are known beforehand: sorted by length, longest first.

    Longest first, so that the lanes end together.
    """
    encode = engine.tokenizer.encode
    chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
    with ThreadPoolExecutor(lanes) as pool:
        start_s = time.perf_counter()
        encodings: list[Encoding] = [e for chunk in pool.map(encode, chunks) for e in chunk]
        encodings.sort(key=len, reverse=True)
        list(pool.map(engine.run, _batches(encodings, batch)))
        return len(texts) / (time.perf_counter() - start_s)


def _batches(encodings: Sequence[Encoding], batch: int) -> list[Sequence[Encoding]]:
    return [encodings[start : start + batch] for start in range(0, len(encodings), batch)]


def _alone(engine: Engine, texts: Sequence[str]) -> dict[str, Any]:
    times_ms, before_s = [], time.process_time()
    for text in texts:
        start_s = time.perf_counter()
        engine.run(engine.tokenizer.encode([text]))
        times_ms.append((time.perf_counter() - start_s) * 1e3)
    cpu_ms = (time.process_time() - before_s) / len(texts) * 1e3
    return {"times_ms": times_ms, "cpu_ms": cpu_ms}


if __name__ == "__main__":
    _main()
