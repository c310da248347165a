"""Running the steps of trials, each in a process of its own, and hearing what came of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from export.errors import ExportError, RecipeUnfit
from export.trial import FAILURES, FULL
from export.workshop import Workshop

_SAID = 300  # characters of a failure's last line


def run_step(
    workshop: Workshop,
    name: str,
    step: str,
    given: dict[str, Any] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Run one step of candidate *name* to its end; *advance* is told of rows done.

    Raises what the step raised when it is one of `trial.FAILURES`, `RecipeUnfit` with the reason for
    whatever else it died of, and OSError for a full disk. Interrupted, it takes the process with it.
    """
    log = workshop.graph(name).with_name(f"{step}.log")
    command = [sys.executable, "-P", "-m", "export.trial"]
    command += [str(workshop.folder), name, step, json.dumps(given or {})]
    # The same modules as here, and none from the folder the user happens to stand in.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        log.open("w") as said,
        subprocess.Popen(  # noqa: S603 - our own module
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None, "a pipe was asked for; this is a bug"
        try:
            for line in process.stdout:
                advance(int(line))
        except BaseException:
            process.kill()
            raise
    if process.returncode == FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workshop.folder))
    if process.returncode != 0:
        raise _failure(process.returncode, log.read_text(errors="replace"))


def _failure(code: int, said: str) -> ExportError:
    if code < 0:
        return RecipeUnfit(f"its process died of signal {-code}")
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "no word")
    if code in FAILURES:
        return FAILURES[code](last)
    return RecipeUnfit(f"it failed: {last[:_SAID]}")
