"""The load client's process: a job as JSON on stdin, samples into the file it names."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.wire.arrivals import OpenLoop
from benchmarks.wire.loops import ClosedLoop, Load, OnceLoop
from benchmarks.wire.requests import post_requests

_LOOPS: dict[str, type[Load]] = {"closed": ClosedLoop, "open": OpenLoop, "once": OnceLoop}


def main() -> None:
    """Run the job."""
    job = json.load(sys.stdin)
    host = f"[{job['host']}]" if ":" in job["host"] else job["host"]
    requests = post_requests(
        Path(job["bodies"]).read_bytes(),
        job["sizes_bytes"],
        path=job["prefix"] + job["path"],
        host=f"{host}:{job['port']}",
    )
    gc.disable()  # samples are never garbage, and walking through them would delay answers
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        document = runner.run(_load(job, requests))
    Path(job["samples"]).write_text(json.dumps(document), encoding="utf-8")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _load(job: dict[str, Any], requests: list[bytes]) -> dict[str, Any]:
    load = _LOOPS[job["mode"]](job, requests)
    try:
        await load.connect()
    except OSError as error:
        return {"refused": str(error)}
    before_s = time.process_time()
    await load.run()
    load_s = load.elapsed_s()
    return {
        "samples": load.samples,
        "warmup_s": job["warmup_s"],
        "duration_s": job.get("duration_s", load_s),
        "load_s": load_s,
        "client_cpu_s": time.process_time() - before_s,
    }


if __name__ == "__main__":
    main()
