"""Where a package or a checkpoint lies, asked as a user asks: benchmarks import no registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.errors import NoArtifact


def find_folder(reference: str, kind: str) -> Path:
    """The folder of *reference*, itself a folder or known to the registry. Raises `NoArtifact`."""
    if Path(reference).is_dir():
        return Path(reference)
    command = [sys.executable, "-m", "miniml", "registry", "show", reference, "--kind", kind]
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode != 0:
        said = found.stderr.strip().removeprefix("Error: ")
        raise NoArtifact(f"The {kind} {reference!r} cannot be found: {said}")
    return Path(json.loads(found.stdout)["uri"])
