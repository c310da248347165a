"""A candidate's process as its parent sees it: started, asked, and ended whatever it does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec import Struct

from serving.shadow.worker import Began, Given, Opinions, Start

_Said = TypeVar("_Said", bound=Struct)
_START_S = 120.0


class LostError(Exception):
    """The candidate's process ended, or hangs."""


class CandidateProcess:
    """What it says, or `LostError` when it ended or is not heard of in time.

    patience_s: for an answer; its start has two minutes.
    """

    def __init__(self, start: Start, *, patience_s: float) -> None:
        self._start = start
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._running = _run_worker(theirs)
        self._socket.settimeout(_START_S)
        self._patience_s = patience_s
        self._line = self._socket.makefile("rwb")

    def begin(self) -> Began:
        """Load, warm up, prove the golden answers."""
        began = self._exchange(self._start, Began)
        self._socket.settimeout(self._patience_s)
        return began

    def ask(self, given: Given) -> Opinions:
        """One batch."""
        return self._exchange(given, Opinions)

    def kill(self) -> None:
        """From any thread; who waits for it hears at once."""
        self._running.kill()

    def close(self) -> None:
        """End it."""
        self.kill()
        self._running.wait()
        with suppress(OSError):  # of what it did not read
            self._line.close()
        self._socket.close()

    def _exchange(self, said: Struct, kind: type[_Said]) -> _Said:
        try:
            self._line.write(msgspec.json.encode(said) + b"\n")
            self._line.flush()
            heard = self._line.readline()
            if not heard.endswith(b"\n"):
                raise LostError("The candidate's process ended.")
            return msgspec.json.decode(heard, type=kind)
        except TimeoutError as error:
            raise LostError("The candidate hangs.") from error
        except msgspec.DecodeError as error:
            raise LostError(f"The candidate's process said nonsense ({error}).") from error
        except OSError as error:
            raise LostError(f"The candidate's process ended ({error.strerror}).") from error


def _run_worker(line: socket.socket) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "serving.shadow.worker", str(line.fileno())],
            pass_fds=[line.fileno()],
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TOKENIZERS_PARALLELISM": "false",  # as in the replica
                "OTEL_SDK_DISABLED": "true",  # its batches are no caller's
            },
        )
    except OSError as error:  # no memory, as a rule
        raise LostError(f"The candidate's process did not start ({error.strerror}).") from error
