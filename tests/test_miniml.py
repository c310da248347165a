"""The front door: options arrive as given, results go to stdout, faults are one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = (
    ["transform"], ["train"], ["export"], ["serve"], ["predict"], ["bench", "load"],
    ["bench", "slo"], ["bench", "tune"], ["bench", "demo"], ["bench", "engine"], ["bench", "core"],
    ["bench", "peers"], ["bench", "planner"], ["bench", "backends"], ["bench", "report"],
    ["bench", "compare"], ["bench", "all"], ["bench", "offline"],
    ["package", "inspect"], ["package", "verify"], ["package", "diff"],
    ["shadow", "report"], ["shadow", "start"], ["shadow", "stop"], ["promote"],
    ["package", "bench"], ["registry", "list"], ["registry", "show"], ["registry", "alias"],
    ["registry", "verify"], ["registry", "gc"], ["registry", "ui"], ["registry", "serve"],
    ["registry", "push"], ["registry", "fetch"], ["registry", "user", "add"],
    ["registry", "user", "list"], ["registry", "user", "remove"],
    ["image", "build"], ["job", "fetch"], ["job", "summary"],
)  # fmt: skip


def miniml(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "miniml", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    """--help of each command exits 0 and says what it does; stages show an example."""
    result = miniml(*command, "--help")

    assert result.returncode == 0
    assert "Usage" in result.stdout
    if len(command) == 1:
        assert f"miniml {command[0]}" in " ".join(result.stdout.split())


def test_it_says_which_version_it_is() -> None:
    """As pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    told = miniml("--version")

    assert (told.returncode, told.stdout) == (0, f"miniml {project['version']}\n")


def test_json_is_one_document_last_on_stdout(tmp_path: Path) -> None:
    """With --json the last line of stdout is the result, notes and progress being on stderr."""
    source = tmp_path / "rows.csv"
    source.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    result = miniml("transform", str(source), "--name", "rows", "--json")
    document = json.loads(result.stdout.splitlines()[-1])

    assert result.returncode == 0, result.stderr
    assert document["reference"] == "rows/1"
    assert document["dataset"]["labels"] == ["a", "b"]
    assert "Text: column 'text'" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["transform", "missing.csv"], "missing.csv"),
        (["train", "--dataset", "nothing@latest"], "nothing"),
        (["train", "--dataset", "no/such/folder"], "no/such/folder"),
        (["export", "nothing"], "nothing"),
        (["serve", "nothing"], "nothing"),
        (["predict", "a text", "--package", "nothing"], "nothing"),
        (["predict", "a text", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["predict", "--input", "missing.txt"], "missing.txt"),
        (["predict", "a text", "--output", "there"], "--input"),
        (["bench", "load", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["registry", "show", "nothing"], "nothing"),
        (["registry", "fetch", "nothing", "--output", "there"], "nothing"),
        (["registry", "push", "no/such/folder", "--name", "mine"], "no/such/folder"),
        (["registry", "ui", "--host", "0.0.0.0"], "miniml registry serve"),
        (["registry", "user", "list"], "MLFLOW_TRACKING_URI"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_faults_are_one_sentence(arguments: list[str], words: str) -> None:
    """What the user can mend ends with exit code 1 and a message, never with a traceback."""
    result = miniml(*arguments)
    message = " ".join(result.stderr.split())

    assert result.returncode == 1
    assert "Error:" in message
    assert words in message
    assert "Traceback" not in message
    assert result.stdout == ""
