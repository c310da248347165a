"""`miniml serve --request-log -`: what replicas log goes to this process's standard output.

They are other processes, whose own output Ray keeps. They could open ours by /proc/PID/fd/1, but not
where it is a socket (systemd's journal) or a pipe of another user's (a container's), so they are
given a socket to write to.
"""

from __future__ import annotations

import os
import shutil
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The kernel allows 107 in all.
_LONGEST_FOLDER_BYTES = 80


@contextmanager
def relayed() -> Iterator[Path]:
    """A socket only this user may connect to; each line that comes goes whole to standard output."""
    long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER_BYTES
    folder = Path(tempfile.mkdtemp(prefix="miniml-", dir="/tmp" if long else None))  # noqa: S108 - a short one
    path = folder / "log"
    try:
        with _Relay(path, _to_stdout()) as relay:
            thread = threading.Thread(target=relay.serve_forever, args=(0.1,), daemon=True)
            thread.start()
            try:
                yield path
            finally:
                relay.shutdown()  # and leaving waits for those who still write
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _to_stdout() -> Callable[[bytes], None]:
    lock = threading.Lock()
    out = sys.stdout.buffer

    def write(line: bytes) -> None:
        with lock:
            out.write(line)
            out.flush()

    return write


class _Relay(socketserver.ThreadingUnixStreamServer):
    """A thread for each replica."""

    def __init__(self, path: Path, write: Callable[[bytes], None]) -> None:
        self.write = write
        super().__init__(str(path), _Replica)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Standard output takes no more: the replica sees its end of the line closed, and counts."""


class _Replica(socketserver.StreamRequestHandler):
    server: _Relay

    def handle(self) -> None:
        for line in self.rfile:
            if line.endswith(b"\n"):  # else its writer was cut off
                self.server.write(line)
