"""Work in a process of its own: what it gives and raises comes over, what it loads does not."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest

from serving.apart import apart
from serving.errors import PackageError, ServingError

SLOW_S, SOON_S = 60.0, 20.0


class StopNowError(Exception):
    """Whoever waits has had enough."""


def children() -> list[psutil.Process]:
    """Those of this process that run work apart."""
    every = psutil.Process().children(recursive=True)
    return [child for child in every if "serving.apart" in child.cmdline()]


def test_it_is_another_process_and_its_imports_stay_there() -> None:
    """What is printed there is not taken for the answer."""
    before = set(sys.modules)

    pid, module = apart(partial(imported, "this"), "It", timeout_s=SOON_S)

    assert pid != os.getpid()
    assert module == "this"
    assert "this" not in sys.modules
    assert set(sys.modules) == before


def imported(name: str) -> tuple[int, str]:
    """Import *name*, which prints."""
    return os.getpid(), __import__(name).__name__


def test_errors_come_over_whole() -> None:
    """With their message, their hint, and where they were raised."""
    with pytest.raises(PackageError, match="broken") as caught:
        apart(refused, "It", timeout_s=SOON_S)

    assert caught.value.hint == "mend it"
    assert "in refused" in caught.value.__notes__[0]


def refused() -> None:
    """Say what is wrong."""
    raise PackageError("It is broken.", hint="mend it")


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (partial(signal.raise_signal, signal.SIGKILL), "Waiting ended with -9 and without a word"),
        (partial(time.sleep, SLOW_S), "Waiting took longer than 1 s"),
    ],
)
def test_an_end_without_an_answer_is_told(work: partial[None], words: str) -> None:
    """Killed, or too slow; nobody is left."""
    limit_s = SOON_S if "ended" in words else 1.0

    with pytest.raises(ServingError, match=words):
        apart(work, "Waiting", timeout_s=limit_s)

    assert children() == []


def test_whoever_waits_may_give_it_up() -> None:
    """By raising; nobody is left."""
    looks = iter(range(3))

    def unless() -> None:
        if next(looks, None) is None:
            raise StopNowError

    with pytest.raises(StopNowError):
        apart(partial(time.sleep, SLOW_S), "It", timeout_s=SOON_S, unless=unless)

    assert children() == []
