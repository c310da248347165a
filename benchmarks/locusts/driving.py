"""Locust, headless, in processes of its own: started with a load, followed, and read."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client_process import ClientCommand, Watcher, require_files, run_client
from benchmarks.errors import LoadFailed, TooFewFiles
from benchmarks.schedule import Arrivals, Shape
from benchmarks.wire.shots import WireRun, run_of
from benchmarks.workloads import Body

_LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
# Locust is loaded, starts its users, waits for workers: all before the load begins.
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocustLoad:
    """users: of a closed loop; of an open one (*rate_per_s* is not None) the most under way."""

    url: str
    users: int
    rate_per_s: float | None
    arrivals: Arrivals
    shape: Shape
    warmup_s: float
    duration_s: float
    drain_s: float
    seed: int
    processes: int


def locust_loop(load: LocustLoad, bodies: Sequence[Body], watcher: Watcher) -> WireRun:
    """Run the load. Ctrl-C gives what was seen so far, marked as interrupted.

    Raises `TooFewFiles`, or `LoadFailed` when Locust broke.
    """
    require_files(load.users)
    with tempfile.TemporaryDirectory(prefix="miniml-locust-") as name:
        folder = Path(name)
        bodies_path = folder / "bodies"
        bodies_path.write_bytes(b"\n".join(body.content for body in bodies))
        command = ClientCommand(
            words=_words(load),
            folder=folder,
            environment={
                **os.environ,
                "MINIML_BODIES": str(bodies_path),
                "MINIML_SAMPLES": name,
            },
            limit_s=load.warmup_s + load.duration_s + load.drain_s + _GRACE_S,
        )
        rows, end = run_client(command, watcher)
        last_words = command.last_words()
    if end.get("out_of_files"):
        raise TooFewFiles(
            f"Locust ran out of open files at {load.users} users; raise the limit (`ulimit -n`) or"
            " ask for fewer."
        )
    if not rows and not end.get("interrupted"):
        raise LoadFailed(f"Locust sent nothing: {last_words}")
    return run_of(rows, end, bodies, warmup_s=load.warmup_s, duration_s=load.duration_s)


def _words(load: LocustLoad) -> list[str]:
    words = [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", load.url.rstrip("/"), "--loglevel", "WARNING"),
        *("--users", str(load.users), "--spawn-rate", str(load.users)),
        *("--rate-per-s", repr(load.rate_per_s or 0.0), "--arrivals", load.arrivals),
        *("--shape", load.shape, "--seed", str(load.seed)),
        *("--warmup-s", repr(load.warmup_s), "--duration-s", repr(load.duration_s)),
        *("--drain-s", repr(load.drain_s)),
    ]
    if load.processes > 1:
        port = str(_free_port())
        words += ["--processes", str(load.processes)]
        words += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        words += ["--master-port", port]
    return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
