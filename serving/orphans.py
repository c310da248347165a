"""Nothing that a server started is left behind, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_END_S = 5.0
_POLL_S = 0.05
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextmanager
def no_orphans() -> Iterator[None]:
    """End every process that was started inside and is still there at the end.

    When a service manager signals the whole group, Ray's own processes end before they have ended
    theirs: HAProxy would live on and keep the port. As a subreaper this process inherits them.
    """
    before = _children()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        deadline_s = time.monotonic() + _END_S
        # Again and again: whoever ends leaves us its own children.
        while left := _children() - before:
            late = time.monotonic() > deadline_s
            for pid in left:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(_POLL_S)


def _children() -> set[int]:
    """Process ids of this process's children; none where the kernel does not list them."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}
