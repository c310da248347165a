"""A `miniml serve` process for as long as a benchmark needs it, reached over HTTP like any other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.errors import PortTaken, ServerUnreachable
from serving.client import Client

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """Where it answers, and the process that all others of it descend from."""

    url: str
    pid: int


@contextmanager
def serving(
    package: str,
    *,
    port: int,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Serve *package* on this machine inside the block; it is stopped again whatever happens.

    arguments: more of `miniml serve`; environment: on top of ours. Raises `PortTaken`, or `ServerUnreachable` when the server does not become ready.
    """
    _refuse_taken(port)
    url = f"http://{_HOST}:{port}"
    command = [sys.executable, "-m", "miniml", "serve", package, "--port", str(port), *arguments]
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})})  # noqa: S603
    try:
        with Client(url) as client:
            client.wait_ready(timeout_s=_START_TIMEOUT_S, alive=lambda: process.poll() is None)
        if process.poll() is not None:
            raise ServerUnreachable("The server stopped before it was ready; it said why above.")
        yield RunningServer(url=url, pid=process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _refuse_taken(port: int) -> None:
    """Else whoever listens there would be taken for ours, and be measured."""
    if not 0 < port <= _LAST_PORT:
        raise PortTaken(f"There is no port {port}; choose a --port from 1 to {_LAST_PORT}.")
    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise PortTaken(
                f"Somebody answers on port {port} already; stop it or choose another --port."
            )
