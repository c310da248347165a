"""A load client as a process of its own: started, followed through its samples, interrupted.

Its CPU time must be told from ours, and nothing of ours may delay it.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.errors import LoadFailed, TooFewFiles
from benchmarks.samples import SampleReader, SampleRow, read_end

_POLL_S = 0.1
_STOP_S = 10.0
_OWN_FILES = 64  # what a client has open beside its connections
_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who wants to see a load while it runs."""

    def see(self, rows: Iterable[SampleRow]) -> None:
        """Some time has passed, and these came meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCommand:
    """words: of the command line. folder: where it leaves its samples. limit_s: it must end by then."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str] | None = None
    stdin: bytes = b""
    limit_s: float | None = None
    said_path: Path = field(init=False)

    def __post_init__(self) -> None:
        """Where its output goes."""
        object.__setattr__(self, "said_path", self.folder / "said")

    def last_words(self) -> str:
        """The last line that it printed."""
        lines = self.said_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def run_client(
    command: ClientCommand, watcher: Watcher | None = None
) -> tuple[list[SampleRow], Mapping[str, Any]]:
    """Run it to its end, or, on Ctrl-C, ask it to stop: its samples, and what it told at its end.

    An interrupted load tells so in its end (`interrupted`). Raises `LoadFailed` when it breaks or
    does not end in time.
    """
    reader, rows = SampleReader(command.folder), list[SampleRow]()
    with command.said_path.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - words of ours
            command.words,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=command.environment,
            process_group=0,  # Ctrl-C is for us to pass on, once it can be heard
        )
        try:
            interrupted = _follow(process, command, reader, rows, watcher)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()
    rows += reader.new_rows()
    end = read_end(command.folder)
    if interrupted:
        return rows, {**(end or _cut_off(rows)), "interrupted": True}
    if end is None:
        raise LoadFailed(f"The load client failed: {command.last_words()}")
    return rows, end


def _follow(
    process: subprocess.Popen[bytes],
    command: ClientCommand,
    reader: SampleReader,
    rows: list[SampleRow],
    watcher: Watcher | None,
) -> bool:
    """Until it ends; True when it was interrupted. Raises `LoadFailed` when it does not end in time."""
    deadline_s = time.monotonic() + (command.limit_s or float("inf"))
    try:
        assert process.stdin is not None, "it was asked for; this is a bug"
        with suppress(BrokenPipeError):
            process.stdin.write(command.stdin)
            process.stdin.close()
        while process.poll() is None:
            if time.monotonic() > deadline_s:
                raise LoadFailed(f"The load client did not end within {command.limit_s:.0f} s.")
            new = list(reader.new_rows()) if watcher else []
            rows += new
            if watcher:
                watcher.see(new)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_POLL_S)
    except KeyboardInterrupt:
        _log.info("Interrupted: keeping what was seen so far")
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_S)
        return True
    return False


def require_files(connections: int) -> None:
    """Raise `TooFewFiles` when this process, or its children, may not open so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + _OWN_FILES:
        raise TooFewFiles(
            f"{connections} connections need {connections + _OWN_FILES} open files, and the limit"
            f" is {hard}; raise it (`ulimit -n`) or ask for fewer connections."
        )


def allow_files() -> None:
    """Raise the limit of open files as far as it may be; in the client's process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cut_off(rows: Sequence[SampleRow]) -> Mapping[str, Any]:
    """The end of a client that did not live to tell it."""
    load_s = max((row.sent_s + row.latency_ms / 1e3 for row in rows), default=0.0)
    return {"load_s": load_s, "clients": [], "began_s": 0.0}
