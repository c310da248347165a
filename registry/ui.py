"""MLflow's own page on the registry, as a child process that ends with this one."""

from __future__ import annotations

import http
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from registry.connection import artifact_root, create_embedded, embedded_uri, server_uri
from registry.errors import AddressTaken, StoreUnavailable

_log = logging.getLogger(__name__)
_POLL_S, _ANSWER_S = 0.2, 2
_STOP_S = 10
_LAST_PORT = 65535


def ui(*, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Show the registry at http://host:port until interrupted (Ctrl-C or SIGTERM).

    With MLFLOW_TRACKING_URI there is a page already; then its address is told and nothing started.
    Raises `AddressTaken`, and `StoreUnavailable` when MLflow's server does not start.
    """
    if (uri := server_uri()) is not None:
        _log.info("MLFLOW_TRACKING_URI names a server, which has its own page: %s", uri)
        return
    _require_free(host, port)
    create_embedded()
    with (
        tempfile.TemporaryFile() as output,
        _interruptible(),
        _server(host, port, output) as server,
    ):
        while not _answers(host, port):
            _raise_if_ended(server, output)
        shown = f"[{host}]" if ":" in host else host
        _log.info("The registry is at http://%s:%d; Ctrl-C stops it.", shown, port)
        server.wait()
        _raise_if_ended(server, output)


def _require_free(host: str, port: int) -> None:
    if not 0 < port <= _LAST_PORT:
        raise AddressTaken(f"There is no port {port}; choose a --port from 1 to {_LAST_PORT}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise AddressTaken(
            f"Cannot listen on {host}:{port} ({error.strerror}); choose another with --port."
        ) from error


@contextmanager
def _server(host: str, port: int, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The running server, in a process group of its own, so that its workers end with it."""
    store = ["--backend-store-uri", embedded_uri(), "--artifacts-destination", str(artifact_root())]
    address = ["--host", host, "--port", str(port), "--workers", "1"]
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job runner for features not used here
    }
    process = subprocess.Popen(  # noqa: S603  # no shell; host and port are one argument each
        [sys.executable, "-m", "mlflow", "server", *store, *address],
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _answers(host: str, port: int) -> bool:
    """Whether the server is up. Not by urllib, which would ask a proxy for a loopback address."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _raise_if_ended(server: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    """Wait a moment; raise with the last thing the server said when it has ended."""
    try:
        code = server.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise StoreUnavailable(f"MLflow's server ended with code {code}: {lines[-1]}.")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM becomes KeyboardInterrupt, so that the server is stopped on that way out too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
