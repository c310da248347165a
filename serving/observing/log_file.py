"""Where lines are put so that each stays whole: a file that several processes share, or a socket.

Knows nothing of what the lines say.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Protocol

from serving.errors import ServingError

STANDARD_OUTPUT = Path("-")  # of `miniml serve`; for a replica it is nowhere
_SEND_S = 1.0


class Unwritable(ServingError):
    """Lines cannot be written there."""


class Sink(Protocol):
    """Takes whole lines."""

    def write(self, lines: bytes) -> None:
        """All of *lines*, each with its newline. Raises `OSError`; then some may be lost."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def open_sink(path: Path) -> Sink:
    """Whatever is at *path*: a socket that somebody listens at, or a file, made where there is none.

    Raises `Unwritable` with one sentence.
    """
    if path == STANDARD_OUTPUT:
        raise Unwritable(f"{path} is the output of miniml serve alone; name a file.")
    try:
        if path.is_socket():
            return SocketSink(path)
        return FileSink(path)
    except OSError as error:
        raise Unwritable(
            f"{path} cannot be written ({error.strerror}).", hint="Choose another --request-log."
        ) from error


class FileSink:
    """A file at *path*, opened anew when something else is there: a log that was rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = False
        self._descriptor: int | None = None
        self._open()

    def write(self, lines: bytes) -> None:
        """By one call of the kernel, which lets nobody else's lines in between (O_APPEND)."""
        if self._descriptor is None or self._moved(self._descriptor):
            self.close()
            self._open()
        assert self._descriptor is not None, "an open file without a descriptor; this is a bug"
        if self._torn:  # what a full disk cut off must not spoil the next line
            lines = b"\n" + lines
        while lines:
            written = os.write(self._descriptor, lines)
            self._torn = written < len(lines)
            lines = lines[written:]  # the disk is nearly full: the next call says so

    def close(self) -> None:
        """Of this process; others may have it open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        if self._path.exists() and not self._path.is_file():  # a pipe would block until it is read
            raise OSError(errno.EINVAL, "it is no file")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o666)  # the umask decides, as for any log
        self._torn = False

    def _moved(self, descriptor: int) -> bool:
        try:
            there, ours = self._path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


class SocketSink:
    """A UNIX stream socket at *path*; connected anew when it broke."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._connect()

    def write(self, lines: bytes) -> None:
        """Until somebody has taken them, for a second at most."""
        if self._socket is None:
            self._connect()
        assert self._socket is not None, "connected without a socket; this is a bug"
        try:
            self._socket.sendall(lines)
        except OSError:  # a part may be sent: only a new connection begins a new line
            self.close()
            raise

    def close(self) -> None:
        """Whoever listens sees the end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(_SEND_S)
        try:
            connected.connect(str(self._path))
        except OSError:
            connected.close()
            raise
        self._socket = connected
