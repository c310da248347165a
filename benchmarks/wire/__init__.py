"""A lean HTTP/1.1 load client: what is sent, what came of it, and two ways to load a server.

Closed loop: each connection waits for its answer before it asks again, so the rate is a result.
Open loop: requests arrive by a seeded Poisson process whatever the server does, and each latency
counts from the scheduled time, so that a stall is seen by all who would have met it.

The load runs in a process of its own (`python -m benchmarks.wire`, a job as JSON on stdin that
names a file for the samples): its CPU time must be told from ours, and nothing of ours may delay it. This
module only hands over the job and derives numbers; it knows neither packages nor what is in a body.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from benchmarks.errors import LoadFailed, ServerUnreachable
from benchmarks.record import percentile

OK = 200
NO_ANSWER = 0  # the status of a request whose connection ended or that nobody answered in time
DRAIN_S = 30.0
_GRACE_S = 30.0
Mode = Literal["closed", "open", "once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request body, as it goes over the wire, and how many texts it holds."""

    content: bytes
    texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request. body: which of the bodies was sent. status: of HTTP, or `NO_ANSWER`.

    sent_s: since the load began, the scheduled time in an open loop, the real one otherwise.
    latency_ms: from then to the last byte of the answer. The three parts are what the server said
    in its `x-...-ms` headers, None when it did not. answer: the body, when answers are kept.
    """

    sent_s: float
    latency_ms: float
    status: int
    texts: int
    body: int = 0
    tokenize_ms: float | None = None
    queue_ms: float | None = None
    infer_ms: float | None = None
    answer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRun:
    """What one load saw.

    shots: sent in the window, which lasts *duration_s* after *warmup_s*, in the order sent. early:
    sent in the warm-up and answered in the window; they count for the rate and for nothing else.
    requests: all of the load, warm-up included. client_cpu_s: CPU time of the load client from the
    first request to the last answer, which took *load_s*.
    """

    shots: tuple[Shot, ...]
    early: tuple[Shot, ...] = ()
    warmup_s: float = 0.0
    duration_s: float
    requests: int
    load_s: float
    client_cpu_s: float

    @property
    def latencies_ms(self) -> list[float]:
        """Latencies of the shots answered with 200."""
        return [shot.latency_ms for shot in self.shots if shot.status == OK]

    @property
    def errors(self) -> Mapping[int, int]:
        """Status -> number of shots, of every status but 200."""
        return dict(Counter(shot.status for shot in self.shots if shot.status != OK))

    @property
    def texts_per_s(self) -> float:
        """Texts whose answer of 200 was whole within the window, a second."""
        begin_s, end_s = self.warmup_s, self.warmup_s + self.duration_s
        texts = sum(
            shot.texts
            for shot in (*self.early, *self.shots)
            if shot.status == OK and begin_s < shot.sent_s + shot.latency_ms / 1e3 <= end_s
        )
        return texts / self.duration_s

    @property
    def steady_texts_per_s(self) -> float:
        """The same for a closed loop, without the luck of where the window cuts.

        A call that straddles an edge counts by the share of its time inside: it may hold many texts,
        and whether it ends just before or just after is chance. Only where as much is under way at
        both edges: of a queue that grows it would count what is not done yet.
        """
        texts = sum(self._texts_inside(shot) for shot in (*self.early, *self.shots))
        return texts / self.duration_s

    @property
    def requests_per_s(self) -> float:
        """Shots answered with 200, a second of the window."""
        return len(self.latencies_ms) / self.duration_s

    def percentile_ms(self, percent: float) -> float:
        """Nearest-rank percentile of `latencies_ms`. Raises ValueError when there are none."""
        return percentile(self.latencies_ms, percent)

    def _texts_inside(self, shot: Shot) -> float:
        if shot.status != OK:
            return 0.0
        end_s = shot.sent_s + shot.latency_ms / 1e3
        inside_s = min(end_s, self.warmup_s + self.duration_s) - max(shot.sent_s, self.warmup_s)
        length_s = end_s - shot.sent_s
        return shot.texts * (inside_s / length_s if length_s > 0 else 1.0) if inside_s >= 0 else 0.0


def closed_loop(  # noqa: PLR0913 - the settings of a load, all by name
    url: str,
    bodies: Sequence[Body],
    *,
    connections: int,
    warmup_s: float,
    duration_s: float,
    path: str = "/predict",
    keep_answers: bool = False,
) -> WireRun:
    """Load *url* with *connections*, each with one request at a time; bodies in order, repeated.

    The load goes on after the window until all that was sent in it is answered.
    Raises `ServerUnreachable` when nothing listens, `LoadFailed` when the client broke.
    """
    return _run(
        url,
        bodies,
        mode="closed",
        connections=connections,
        warmup_s=warmup_s,
        duration_s=duration_s,
        path=path,
        keep_answers=keep_answers,
    )


def open_loop(  # noqa: PLR0913 - the settings of a load, all by name
    url: str,
    bodies: Sequence[Body],
    *,
    rate_per_s: float,
    warmup_s: float,
    duration_s: float,
    seed: int = 0,
    connections: int = 512,
    path: str = "/predict",
    keep_answers: bool = False,
) -> WireRun:
    """Load *url* with requests that arrive at *rate_per_s* by chance, whatever the server does.

    connections: at most; when all are busy, requests wait in the client and that wait counts. The
    client's clock wakes it within 1 ms, which counts, too. What is unanswered 30 s after the window
    is given up as `NO_ANSWER`. Raises as `closed_loop`.
    """
    return _run(
        url,
        bodies,
        mode="open",
        connections=connections,
        rate_per_s=rate_per_s,
        warmup_s=warmup_s,
        duration_s=duration_s,
        seed=seed,
        path=path,
        keep_answers=keep_answers,
    )


def send_each_once(
    url: str, bodies: Sequence[Body], *, connections: int, path: str = "/predict"
) -> WireRun:
    """Send every body exactly once over *connections* and keep the answers. Raises as `closed_loop`.

    The window is the time it took.
    """
    return _run(
        url, bodies, mode="once", connections=connections, path=path, warmup_s=0, keep_answers=True
    )


def _run(url: str, bodies: Sequence[Body], *, mode: Mode, **settings: Any) -> WireRun:
    """Run one job in a process of its own and read what it saw."""
    with tempfile.TemporaryDirectory(prefix="miniml-wire-") as folder:
        bodies_path, samples_path = Path(folder) / "bodies", Path(folder) / "samples.json"
        bodies_path.write_bytes(b"".join(body.content for body in bodies))
        job = {
            **_address(url),
            **settings,
            "mode": mode,
            "bodies": str(bodies_path),
            "sizes_bytes": [len(body.content) for body in bodies],
            "samples": str(samples_path),
            "drain_s": DRAIN_S,
        }
        load_s = settings["warmup_s"] + settings.get("duration_s", 0.0)
        _work(job, limit_s=None if mode == "once" else load_s + DRAIN_S + _GRACE_S)
        document = json.loads(samples_path.read_bytes())
    if refused := document.get("refused"):
        raise ServerUnreachable(f"Nothing answers at {url} ({refused}); start a server there.")
    return read_samples(document, bodies)


def _work(job: Mapping[str, Any], *, limit_s: float | None) -> None:
    """Run the load client. Raises `LoadFailed` when it breaks or does not end."""
    try:
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.wire"],
            input=json.dumps(job).encode(),
            capture_output=True,
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"The load client did not end within {limit_s:.0f} s.") from error
    if result.returncode != 0:
        tail = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise LoadFailed(f"The load client failed: {' '.join(tail) or 'it printed nothing'}")


def read_samples(document: Mapping[str, Any], bodies: Sequence[Body]) -> WireRun:
    """What the load client wrote, as a run of *bodies*."""
    rows = sorted(document["samples"], key=lambda row: float(row[1]))
    shots = [_shot(row, bodies) for row in rows]
    warmup_s, duration_s = document["warmup_s"], document["duration_s"]
    early = [s for s in shots if s.sent_s < warmup_s < s.sent_s + s.latency_ms / 1e3]
    return WireRun(
        shots=tuple(s for s in shots if warmup_s <= s.sent_s < warmup_s + duration_s),
        early=tuple(early),
        warmup_s=warmup_s,
        duration_s=duration_s,
        requests=len(shots),
        load_s=document["load_s"],
        client_cpu_s=document["client_cpu_s"],
    )


def _shot(row: Sequence[Any], bodies: Sequence[Body]) -> Shot:
    body, sent_s, latency_ms, status, tokenize_ms, queue_ms, infer_ms, answer = row
    return Shot(
        sent_s=sent_s,
        latency_ms=latency_ms,
        status=status,
        texts=bodies[body].texts,
        body=body,
        tokenize_ms=tokenize_ms,
        queue_ms=queue_ms,
        infer_ms=infer_ms,
        answer=None if answer is None else answer.encode("latin-1"),
    )


def _address(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise ServerUnreachable(f"{url!r} cannot be loaded; give http://HOST:PORT, without TLS.")
    return {"host": parts.hostname, "port": port, "prefix": parts.path.rstrip("/")}
