"""Laws of the process's own times."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from serving.pulse import Pulse


def test_a_blocked_loop_is_seen() -> None:
    """Code that holds the loop for a while shows as lateness of about that while."""
    blocked_s = 0.3

    async def scenario() -> float:
        pulse = Pulse()
        pulse.start()
        pulse.start()  # again does nothing
        while not pulse.beats:  # noqa: ASYNC110 - a pulse tells nobody
            await asyncio.sleep(0)
        end_s = time.perf_counter() + blocked_s
        while time.perf_counter() < end_s:
            pass
        seen = pulse.beats
        while pulse.beats == seen:  # noqa: ASYNC110 - a pulse tells nobody
            await asyncio.sleep(0)
        pulse.stop()
        return pulse.late_ms(100)

    assert asyncio.run(scenario()) >= (blocked_s - 0.05) * 1e3


def test_before_the_first_beat_nothing_is_late() -> None:
    """A process that has just begun has no lateness."""
    assert Pulse().late_ms(99) == 0.0


def test_a_process_is_no_older_than_its_start() -> None:
    """A process's age is positive and no more than the time since somebody started it."""
    before_s = time.perf_counter()
    command = "from serving.pulse import process_age_s; print(process_age_s())"
    told = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    passed_s = time.perf_counter() - before_s

    assert 0 < float(told.stdout) <= passed_s + 0.02  # the kernel counts in ticks of 10 ms
