"""A lean HTTP/1.1 load client: what is sent, and three ways to load a server.

Closed loop: each connection waits for its answer before it asks again, so the rate is a result.
Open loop: requests are due by a seeded schedule whatever the server does, and each latency counts
from the scheduled time, so that a stall is seen by all who would have met it.

The load runs in a process of its own (`python -m benchmarks.wire`, a job as JSON on stdin). This
module only hands over the job; `shots` derives numbers. Neither knows packages nor what is in a body.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from benchmarks.client_process import ClientCommand, Watcher, require_files, run_client
from benchmarks.errors import ServerUnreachable, TooFewFiles
from benchmarks.schedule import Schedule
from benchmarks.wire.shots import NO_ANSWER, OK, ClientProcess, Shot, WireRun, run_of
from benchmarks.workloads.bodies import Body

DRAIN_S = 30.0
CONNECTIONS = 512
_GRACE_S = 30.0
Mode = Literal["closed", "open", "once"]

__all__ = [
    "CONNECTIONS",
    "DRAIN_S",
    "NO_ANSWER",
    "OK",
    "Body",
    "ClientProcess",
    "Shot",
    "WireRun",
    "address",
    "closed_loop",
    "open_loop",
    "scheduled_loop",
    "send_each_once",
]


def closed_loop(  # noqa: PLR0913 - the settings of a load, all by name
    url: str,
    bodies: Sequence[Body],
    *,
    connections: int,
    warmup_s: float,
    duration_s: float,
    path: str = "/predict",
    keep_answers: bool = False,
    watcher: Watcher | None = None,
) -> WireRun:
    """Load *url* with *connections*, each with one request at a time; bodies in order, repeated.

    The load goes on after the window until all that was sent in it is answered.
    Raises `ServerUnreachable` when nothing listens, `TooFewFiles`, or `LoadFailed` when the client
    broke. Ctrl-C raises `KeyboardInterrupt`; with a *watcher* the run comes back, marked.
    """
    job = _job(url, bodies, mode="closed", connections=connections, path=path)
    job |= {"warmup_s": warmup_s, "duration_s": duration_s, "keep_answers": keep_answers}
    return _run(url, job, bodies, watcher)


def open_loop(  # noqa: PLR0913 - the settings of a load, all by name
    url: str,
    bodies: Sequence[Body],
    *,
    rate_per_s: float,
    warmup_s: float,
    duration_s: float,
    seed: int = 0,
    connections: int = CONNECTIONS,
    path: str = "/predict",
    keep_answers: bool = False,
) -> WireRun:
    """Load *url* with requests that arrive at *rate_per_s* by chance; see `scheduled_loop`."""
    schedule = Schedule(rate_per_s=rate_per_s, warmup_s=warmup_s, duration_s=duration_s, seed=seed)
    return scheduled_loop(
        url, bodies, schedule, connections=connections, path=path, keep_answers=keep_answers
    )


def scheduled_loop(  # noqa: PLR0913 - the settings of a load, all by name
    url: str,
    bodies: Sequence[Body],
    schedule: Schedule,
    *,
    connections: int = CONNECTIONS,
    path: str = "/predict",
    drain_s: float = DRAIN_S,
    keep_answers: bool = False,
    watcher: Watcher | None = None,
) -> WireRun:
    """Load *url* with requests when they are due, whatever the server does.

    connections: at most; when all are busy, requests wait in the client and that wait counts. The
    client's clock wakes it within 1 ms, which counts, too. What is unanswered *drain_s* after the
    window is given up as `NO_ANSWER`. Raises as `closed_loop`.
    """
    job = _job(url, bodies, mode="open", connections=connections, path=path)
    job |= {"warmup_s": schedule.warmup_s, "duration_s": schedule.duration_s}
    job |= {"schedule": asdict(schedule), "drain_s": drain_s, "keep_answers": keep_answers}
    return _run(url, job, bodies, watcher)


def send_each_once(
    url: str, bodies: Sequence[Body], *, connections: int, path: str = "/predict"
) -> WireRun:
    """Send every body exactly once over *connections* and keep the answers. Raises as `closed_loop`.

    The window is the time it took.
    """
    job = _job(url, bodies, mode="once", connections=connections, path=path)
    return _run(url, job | {"warmup_s": 0.0, "keep_answers": True}, bodies, None)


def _job(
    url: str, bodies: Sequence[Body], *, mode: Mode, connections: int, path: str
) -> dict[str, Any]:
    return {
        **address(url),
        "mode": mode,
        "connections": connections,
        "path": path,
        "sizes_bytes": [len(body.content) for body in bodies],
        "fresh": all(body.fresh for body in bodies),
        "drain_s": DRAIN_S,
    }


def _run(
    url: str, job: Mapping[str, Any], bodies: Sequence[Body], watcher: Watcher | None
) -> WireRun:
    """Run one job in a process of its own and read what it saw."""
    require_files(job["connections"])
    load_s = None if job["mode"] == "once" else job["warmup_s"] + job["duration_s"]
    with tempfile.TemporaryDirectory(prefix="miniml-wire-") as name:
        folder = Path(name)
        bodies_path = folder / "bodies"
        bodies_path.write_bytes(b"".join(body.content for body in bodies))
        job = {**job, "bodies": str(bodies_path), "folder": name}
        command = ClientCommand(
            words=[sys.executable, "-m", "benchmarks.wire"],
            folder=folder,
            stdin=json.dumps(job).encode(),
            limit_s=None if load_s is None else load_s + job["drain_s"] + _GRACE_S,
        )
        rows, end = run_client(command, watcher)
    if refused := end.get("refused"):
        raise ServerUnreachable(f"Nothing answers at {url} ({refused}); start a server there.")
    if end.get("out_of_files"):
        raise TooFewFiles(
            f"The load client ran out of open files at {job['connections']} connections at most;"
            " raise the limit (`ulimit -n`) or ask for fewer."
        )
    run = run_of(rows, end, bodies, warmup_s=job["warmup_s"], duration_s=job.get("duration_s"))
    if run.interrupted and watcher is None:
        raise KeyboardInterrupt
    return run


def address(url: str) -> dict[str, Any]:
    """host, port and prefix of *url*. Raises `ServerUnreachable` when it is no http://HOST:PORT."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise ServerUnreachable(f"{url!r} cannot be loaded; give http://HOST:PORT, without TLS.")
    return {"host": parts.hostname, "port": port, "prefix": parts.path.rstrip("/")}
