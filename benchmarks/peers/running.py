"""One peer's server while a block runs: started, waited for, stopped whatever happens.

Knows a command, its process and a port, not what serves.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.errors import BenchmarkError, PeerFailed, PortTaken
from benchmarks.peers.codecs import JSON
from benchmarks.peers.peer import Peer
from benchmarks.server import RunningServer

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0
_GONE_TIMEOUT_S = 10.0
_POLL_S = 0.1
_SHOWN_CHARS = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(r"(\w+\.)*\w+(Error|Exception|Fail|Failure): ")  # as tracebacks end
# What a shell may have set for its own Ray or its own libraries is not what the peer's pages show.
_STRIPPED = (
    *("RAY_SERVE_", "RAY_ADDRESS", "RAY_AUTH_", "OMP_NUM_THREADS", "PEER_", "UVICORN_"),
    *("BENTOML_", "INFINITY_", "LITSERVE_", "MLSERVER_"),
)


@contextmanager
def running(peer: Peer, *, port: int, logs: Path) -> Iterator[RunningServer]:
    """*peer*, which answers until the block is left; its log goes to *logs*.

    Raises `PortTaken`, and `PeerFailed` with the last line of its log when it does not start or has
    stopped by the end of the block.
    """
    _refuse_taken_port(port)
    log = logs / f"{peer.name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_STRIPPED)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            list(peer.command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**inherited, **peer.environment},
            cwd=peer.folder,
            start_new_session=True,  # Ctrl-C is heard here, once, and handed on below
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(peer, process, url, log)
        try:
            yield RunningServer(url=url, pid=process.pid)
        except BenchmarkError as error:
            _refuse_ended(peer, process, log, because=error)
            raise
        _refuse_ended(peer, process, log)
    finally:
        _stop(process)


def _wait_until_it_answers(
    peer: Peer, process: subprocess.Popen[bytes], url: str, log: Path
) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    question = peer.codec.encode("Is anybody there?")
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise PeerFailed(f"{peer.name} did not start: {_last_word(log)}")
            with suppress(httpx.HTTPError):
                answer = client.post(f"{url}{peer.codec.path}", content=question, headers=JSON)
                if answer.status_code == httpx.codes.OK:
                    return
            time.sleep(_POLL_S)
    raise PeerFailed(
        f"{peer.name} gave no answer within {_START_TIMEOUT_S:.0f} s: {_last_word(log)}"
    )


def _refuse_ended(
    peer: Peer, process: subprocess.Popen[bytes], log: Path, because: Exception | None = None
) -> None:
    if process.poll() is not None:
        raise PeerFailed(f"{peer.name} stopped under load: {_last_word(log)}") from because


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Workers whose parent was killed; until they are gone they hold the port.
    deadline_s = time.monotonic() + _GONE_TIMEOUT_S
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline_s:
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_POLL_S)


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT is free, one that is listened on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise PortTaken(
                f"Port {port} cannot be used ({error}); stop who listens there or choose another"
                " --port."
            ) from error


def _last_word(log: Path) -> str:
    """The last exception in the log, since servers go on to say that they stop; else its last line."""
    text = _COLOURS.sub("", log.read_text(encoding="utf-8", errors="replace"))
    lines = [line.strip() for line in text.strip().splitlines()]
    errors = [line for line in lines if _EXCEPTION.match(line)]
    return ([*lines[-1:], *errors[-1:]] or ["it printed nothing"])[-1][:_SHOWN_CHARS]
