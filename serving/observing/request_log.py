"""One JSON line a request: when, whose, what came of it, where the time went; no text unless asked.

A request only leaves its line; a thread writes. Where lines cannot be written, or not as fast as they
come, they are dropped and counted: no request fails or waits for its line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serving.core import Answered
from serving.errors import ServingError
from serving.observing.log_file import open_sink
from serving.request import Request

_log = logging.getLogger(__name__)
_MOST_BYTES = 16 * 2**20
_AT_ONCE_BYTES = 2**20
# Lines are gathered for so long: the thread would else take turns with the event loop for each.
_GATHER_S = 0.05
_CLOSE_S = 2.0
_LEFT, _CALLERS_FAULT, _OURS = 499, 400, 500  # 499 as nginx has it: the caller has left


class Logged(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is said of a request. What is not known of it is left out."""

    time: str
    level: str
    request_id: str
    trace_id: str | None = None
    door: str
    line: int = 0
    status: int
    error: str | None = None
    texts: int | None = None
    tokens: int | None = None
    cached: int | None = None
    tokenize_ms: float | None = None
    queue_ms: float | None = None
    infer_ms: float | None = None
    total_ms: float
    key: str | None = None
    replica: str = ""
    text: Sequence[str] | None = None
    text_pair: Sequence[str] | None = None


class RequestLog:
    """An observer that writes a line for each request to *path*, a file or a socket.

    with_texts: the texts, too. replica: who writes. Raises `Unwritable` when it cannot be written.
    """

    def __init__(self, path: Path, *, with_texts: bool, replica: str) -> None:
        self._path = path
        self._with_texts = with_texts
        self._replica = replica
        self._sink = open_sink(path)
        self._encoder = msgspec.json.Encoder()
        self._lines: deque[bytes] = deque()
        # Each is written by one thread only: given and refused by the event loop's, the rest by ours.
        self._given_bytes = self._taken_bytes = 0
        self._refused = self._written = self._lost = 0
        self._away = False
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """It got its answers."""
        line = self._line(request, 200, took_s)
        line.texts, line.tokens = len(answered.answers), answered.tokens
        line.cached = answered.cached
        line.tokenize_ms = round(answered.tokenize_ms, 3)
        line.queue_ms, line.infer_ms = round(answered.queue_ms, 3), round(answered.infer_ms, 3)
        self._put(line)

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:
        """It got an error."""
        line = self._line(request, error.status, took_s)
        line.error = type(error).__name__
        self._put(line)

    def left(self, request: Request, took_s: float) -> None:
        """Nobody waited for its answer."""
        line = self._line(request, _LEFT, took_s)
        line.error = "CallerLeft"
        self._put(line)

    def numbers(self) -> dict[str, float]:
        """Lines since the start: written, and dropped."""
        dropped = self._refused + self._lost
        return {"request_log_written": self._written, "request_log_dropped": dropped}

    def close(self) -> None:
        """Write what is left, for two seconds at most."""
        self._closing.set()
        self._some.set()
        self._thread.join(_CLOSE_S)

    def _line(self, request: Request, status: int, took_s: float) -> Logged:
        now_s = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
        texts, pairs = request.trail.texts, request.trail.pairs
        return Logged(
            time=f"{at}.{int(now_s % 1 * 1e3):03d}Z",
            level=_level(status),
            request_id=request.id,
            trace_id=request.trace_id,
            door=request.door,
            line=request.line,
            status=status,
            texts=len(texts) or None,
            total_ms=round(took_s * 1e3, 3),
            key=request.key.name if request.key else None,
            replica=self._replica,
            text=texts or None if self._with_texts else None,
            text_pair=pairs if self._with_texts else None,
        )

    def _put(self, line: Logged) -> None:
        said = self._encoder.encode(line) + b"\n"
        if self._given_bytes - self._taken_bytes + len(said) > _MOST_BYTES:
            self._refused += 1
            return
        self._given_bytes += len(said)
        self._lines.append(said)
        if not self._some.is_set():
            self._some.set()

    def _run(self) -> None:
        while not self._closing.is_set() or self._lines:
            self._some.wait()
            self._closing.wait(_GATHER_S)
            self._some.clear()
            while self._lines:
                self._write()
        self._sink.close()

    def _write(self) -> None:
        lines: list[bytes] = []
        size = 0
        while self._lines and size < _AT_ONCE_BYTES:
            lines.append(self._lines.popleft())
            size += len(lines[-1])
        try:
            self._sink.write(b"".join(lines))
        except OSError as error:
            self._lost += len(lines)
            self._tell(error)
        else:
            self._written += len(lines)
            self._tell(None)
        self._taken_bytes += size

    def _tell(self, error: OSError | None) -> None:
        """Once when it begins to fail, once when it is over."""
        if self._away is (error is not None):
            return
        self._away = error is not None
        if error:
            _log.warning("%s takes no lines (%s); they are dropped", self._path, error.strerror)
        else:
            _log.warning("%s takes lines again", self._path)


def _level(status: int) -> str:
    if status >= _OURS:
        return "ERROR"
    return "WARNING" if status >= _CALLERS_FAULT else "INFO"
