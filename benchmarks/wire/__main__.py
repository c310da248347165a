"""The load client's process: a job as JSON on stdin, samples into the folder it names."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.client_process import allow_files
from benchmarks.samples import SampleFile
from benchmarks.wire.arrivals import OpenLoop
from benchmarks.wire.loops import ClosedLoop, Load, OnceLoop, is_out_of_files
from benchmarks.wire.requests import post_requests

LOOPS: dict[str, type[Load]] = {"closed": ClosedLoop, "open": OpenLoop, "once": OnceLoop}


def main() -> None:
    """Run the job."""
    job = json.load(sys.stdin)
    allow_files()
    requests = requests_of(job)
    gc.disable()  # samples are never garbage, and walking through them would delay answers
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(_load(job, requests))


def requests_of(job: dict[str, Any]) -> list[bytes]:
    """What goes over the wire, a body each."""
    host = f"[{job['host']}]" if ":" in job["host"] else job["host"]
    return post_requests(
        Path(job["bodies"]).read_bytes(),
        job["sizes_bytes"],
        path=job["prefix"] + job["path"],
        host=f"{host}:{job['port']}",
        fresh=job["fresh"],
    )


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _load(job: dict[str, Any], requests: list[bytes]) -> None:
    samples = SampleFile(Path(job["folder"]))
    load = LOOPS[job["mode"]](job, requests, samples)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, load.interrupt)
    try:
        await load.connect()
    except OSError as error:
        samples.end(load.end() | _why_not(error))
        return
    before_s = time.process_time()
    await load.run()
    samples.end(load.end() | {"clients": [load.client(time.process_time() - before_s)]})


def _why_not(error: OSError) -> dict[str, Any]:
    """Why no load began."""
    return {"out_of_files": True} if is_out_of_files(error) else {"refused": str(error)}


if __name__ == "__main__":
    main()
