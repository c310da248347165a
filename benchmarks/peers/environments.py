"""The virtual environments of peers that bring libraries of their own: made once, kept, reused.

One a peer, below miniml's home, from a file of pinned requirements. Knows pip and folders, not
servers.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import PeerNotInstalled

REQUIREMENTS = Path(__file__).with_name("requirements")
_MARK = "installed-requirements.sha256"  # written last: without it the folder is half made
_SHOWN_CHARS = 300


def environment(name: str, requirements: Path, say: Callable[[str], None]) -> Path:
    """The folder of peer *name*'s environment, made of the file *requirements* unless it is there.

    say: told what pip does. Raises `PeerNotInstalled` with pip's last word.
    """
    folder = _home() / "peers" / name
    wanted = _digest(requirements)
    mark = folder / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != wanted:
        mark.unlink(missing_ok=True)
        say(f"{name}: making its environment in {folder}")
        _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)], say)
        pip = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
        _run(name, [*pip, "--progress-bar", "off", "-r", str(requirements)], say)
        mark.write_text(wanted, encoding="utf-8")
    _show_benchmarks(folder)
    return folder


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def sources_of(folder: Path) -> Path:
    """What PYTHONPATH must name, so that the environment sees this room and no library of ours."""
    return folder / "sources"


def pinned(requirements: Path, distribution: str) -> str:
    """The version of *distribution* that the file asks for."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if name.lower().replace("_", "-") == distribution:
            return version
    raise AssertionError(f"{requirements.name} does not pin {distribution}; this is a bug")


def _show_benchmarks(folder: Path) -> None:
    """Link to where this room lies now: the checkout may have moved since."""
    link = sources_of(folder) / "benchmarks"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path(__file__).parent.parent, target_is_directory=True)


def _digest(requirements: Path) -> str:
    """Names the file's text and the Python it is installed for."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}\n"
    return hashlib.sha256(python.encode() + requirements.read_bytes()).hexdigest()


def _run(name: str, command: list[str], say: Callable[[str], None]) -> None:
    """Run *command*, handing each line it prints to *say*."""
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None, "a pipe was asked for"
        last, errors = "it printed nothing", []
        for line in filter(None, map(str.strip, process.stdout)):
            say(f"{name}: {line[:_SHOWN_CHARS]}")
            last = line
            if line.startswith("ERROR:"):
                errors.append(line.removeprefix("ERROR:").strip())
    if process.returncode != 0:
        raise PeerNotInstalled(
            f"{name} could not be installed: {(errors or [last])[-1][:_SHOWN_CHARS]}"
        )


def _home() -> Path:
    """Read here and not from `registry`, which benchmarks do not import."""
    return Path(os.environ.get("MINIML_HOME") or ".miniml").absolute()
