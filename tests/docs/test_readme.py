"""The commands of README and tutorial run as they stand there, in order, in an empty home.

Those of the quickstart are README's path once more, for which there is no time; all else that pages
say is checked beside this.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from docs.checks import blocks
from docs.shell import whole_lines
from serving.client import Client
from serving.environment import free_ports

ROOT = Path(__file__).parent.parent.parent
SERVES = "miniml serve "
# What each page's commands must have printed, and how often at least.
TOLD = {
    "README.md": {
        '"label"': 4,
        "closed loop": 1,
        "texts/s": 1,
        "reviews/1": 1,
        "texts computed": 1,
    },
    "docs/tutorial.md": {
        "fp32, judged": 1,  # the gate refused what was tried first
        "int8-row-wise, judged": 1,
        '"label"': 1,
        "closed loop": 1,
        "comparing": 2,
        "champion names it": 1,
        "answers in 1 replica(s)": 2,
        "tutorial/1": 3,
        "tutorial/2": 3,
    },
}


def steps(page: str, port: int) -> Iterator[list[str]]:
    """What a page has people run, one command each, with *port* for the documented one."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("8000", str(port))
    for block in blocks(text):
        if block.language == "bash":
            yield from (["bash", "-o", "pipefail", "-c", line] for line in whole_lines(block.text))
        elif block.language == "python":
            yield [sys.executable, "-c", block.text]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that has what a checkout has, where commands may leave files."""
    folder = tmp_path / "miniml"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name != "build":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell where `miniml` is this checkout's, with a home of its own."""
    binaries = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "COLUMNS": "120",
    }


@contextmanager
def serving(command: str, port: int, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run *command*, which serves, until the block is left; it must then stop by itself."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=folder, env=environment)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_ready(timeout_s=120, alive=lambda: process.poll() is None)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=90)
    assert code == 0


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What *command* prints; it must exit 0."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", TOLD)
def test_commands(page: str, checkout: Path, environment: dict[str, str]) -> None:
    """From rows to an endpoint that was asked, by what the page says alone; each command exits 0."""
    told, served = [], 0
    (port,) = free_ports(1)
    with ExitStack() as servers:
        for step in steps(page, port):
            if step[-1].startswith(SERVES):
                servers.enter_context(serving(step[-1], port, checkout, environment))
                served += 1
            else:
                told.append(run(step, checkout, environment))
    printed = " ".join(" ".join(told).split())  # lines end where a terminal would

    assert served == 1
    for words, least in TOLD[page].items():
        assert printed.count(words) >= least, words


def test_file_map_names_what_is_there() -> None:
    """Every entry of the README's file map exists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Where things are") :]
    names = re.findall(r"^([a-z][\w./]+)\s{2,}", section, re.MULTILINE)

    assert len(names) >= 8
    assert [name for name in names if not (ROOT / name).exists()] == []
