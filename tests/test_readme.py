"""The README's commands run as they stand there, one after the other, in an empty home."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.client import Client

ROOT = Path(__file__).parent.parent
PORT = 18431


def blocks() -> list[list[str]]:
    """The lines of each ```bash block of the README, with the test's port for the documented one."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("8000", str(PORT))
    return [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell where `miniml` is this checkout's, with a home of its own."""
    binaries = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }


@contextmanager
def serving(command: str, environment: dict[str, str]) -> Iterator[None]:
    """Run *command*, which serves, until the block is left; it must then stop by itself."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=ROOT, env=environment)
    try:
        client = Client(f"http://127.0.0.1:{PORT}")
        client.wait_ready(timeout_s=120, alive=lambda: process.poll() is None)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=90)
    assert code == 0


def run(command: str, environment: dict[str, str]) -> str:
    """What *command* prints; it must exit 0."""
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert result.returncode == 0, f"{command}\n{result.stderr}"
    return result.stdout


@pytest.mark.timeout(900)
def test_readme_commands(environment: dict[str, str]) -> None:
    """From the embedded sample to a loaded endpoint, by the README alone."""
    steps, asked = blocks()
    assert steps[-1].startswith("miniml serve")
    for command in steps[:-1]:
        run(command, environment)
    with serving(steps[-1], environment):
        answers = [run(command, environment) for command in asked]

    assert '"label"' in answers[0]
    assert answers[1].count('"label"') == 2
    assert "closed loop" in answers[3]
    assert "texts/s" in answers[3]
    assert "reviews/1" in answers[4]
    assert "texts computed" in answers[5]


def test_file_map_names_what_is_there() -> None:
    """Every entry of the README's file map exists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Where things are") :]
    names = re.findall(r"^([a-z][\w./]+)\s{2,}", section, re.MULTILINE)

    assert len(names) >= 8
    assert [name for name in names if not (ROOT / name).exists()] == []
