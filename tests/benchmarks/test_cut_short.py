"""A benchmark that is ended from outside ends what it started and keeps what it saw."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import process_tree
from benchmarks.report.kinds import findings_of
from benchmarks.report.records import read_record

Synthetics = Callable[..., AbstractContextManager[Any]]
MINIML = [sys.executable, "-m", "miniml"]


def _commands(pid: int) -> dict[int, str]:
    """Command line of *pid* and all that descend from it."""
    found = {}
    for stat in process_tree(pid):
        try:
            words = Path(f"/proc/{stat.pid}/cmdline").read_bytes()
        except OSError:
            continue
        found[stat.pid] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def _wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    while not until():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_core_keeps_what_it_saw_and_stops_its_server(
    package: Path, tmp_path: Path, free_port: int, number: signal.Signals
) -> None:
    """Ended in a closed loop: a partial record that can be read, exit code 130, no process left."""
    path = tmp_path / "core.json"
    command = [*MINIML, "bench", "core", "--package", str(package), "--port", str(free_port)]
    command += ["--only", "start,closed", "--workload", "queries", "--texts-count", "32"]
    command += ["--seconds", "600", "--output", str(path)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    _wait(
        process, lambda: any("benchmarks.wire" in said for said in _commands(process.pid).values())
    )
    started = _commands(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    record = read_record(path)

    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert record.certificate.partial
    assert "Cut short" in said
    assert record.document["seen"]["start_s"][""]
    assert record.document["seen"]["ceiling_batch_1_texts_per_s"]["queries"]
    assert findings_of(record).findings
    assert len(started) > 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def test_a_killed_load_keeps_what_it_saw(synthetic: Synthetics, tmp_path: Path) -> None:
    """SIGTERM is Ctrl-C to every benchmark, also to one of somebody else's server."""
    path = tmp_path / "record.json"
    with synthetic(hold_s=lambda *_: 0.01) as server:
        command = [*MINIML, "bench", "load", "--url", server.url, "--client", "wire"]
        command += ["--rate-per-s", "100", "--duration-s", "300", "--warmup-s", "0"]
        command += ["--workload", "queries", "--output", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _wait(process, lambda: len(server.log) >= 50)
        process.terminate()
        _, said = process.communicate(timeout=60)
    document = json.loads(path.read_text())

    assert process.returncode == 130, said
    assert document["partial"] is True
    assert document["samples"]
