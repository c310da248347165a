"""A function of ours in a process of its own: what it imports and loads ends with it.

    python -m serving.apart

It reads pickled work, and writes what came of it. Both ends are ours.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from serving.errors import ServingError

T = TypeVar("T")
_LOOK_S = 0.2


def _never() -> None:
    """Nobody gives it up."""


def apart(
    work: Callable[[], T], name: str, *, timeout_s: float, unless: Callable[[], None] = _never
) -> T:
    """What *work* returns in a process of its own; raises what it raises.

    work: a function of a module's top level, or a `partial` of one; that, its result and its errors are pickled.
    name: of what it does, as a sentence begins. unless: asked several times a second; raises to give it up.
    Raises `ServingError` where the process ends without a word, or lasts longer than *timeout_s*.
    """
    # Ray extends its workers' path; what this process can import, the other can.
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for whoever waits here
    )
    try:
        told = _told(process, pickle.dumps(work), timeout_s, unless)
    finally:
        process.kill()
        process.wait()
    if told is None:
        raise ServingError(f"{name} took longer than {timeout_s:g} s.")
    if not told:
        raise ServingError(f"{name} ended with {process.returncode} and without a word.")
    returned, result = pickle.loads(told)  # noqa: S301 - written by the process that was started here
    if not returned:
        raise result
    value: T = result
    return value


def _told(
    process: subprocess.Popen[bytes],
    given: bytes | None,
    timeout_s: float,
    unless: Callable[[], None],
) -> bytes | None:
    """What it writes until it ends; None when it takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        unless()
        try:
            return process.communicate(given, timeout=_LOOK_S)[0]
        except subprocess.TimeoutExpired:
            given = None  # it has it
    return None


def _main() -> None:
    # Whatever else is printed is for people.
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        result: tuple[bool, Any]
        try:
            work = pickle.load(sys.stdin.buffer)  # noqa: S301 - of whoever started this
            result = True, work()
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            error.add_note(traceback.format_exc())  # its traceback would not be pickled
            result = False, error
        answer.write(pickle.dumps(result))


if __name__ == "__main__":
    _main()
