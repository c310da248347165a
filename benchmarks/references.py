"""From a reference to a folder, asked as a user asks it: benchmarks import no registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.errors import ReferenceUnknown


def find_folder(reference: str, kind: str) -> Path:
    """Where the *kind* ("package", "checkpoint") that *reference* names lies.

    Raises `ReferenceUnknown` with the registry's own words.
    """
    if Path(reference).is_dir():
        return Path(reference)
    command = [sys.executable, "-m", "miniml", "registry", "show", reference, "--kind", kind]
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode != 0:
        raise ReferenceUnknown(f"The {kind} {reference!r} cannot be found: {found.stderr.strip()}")
    return Path(json.loads(found.stdout)["uri"])
