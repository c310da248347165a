"""Where miniml keeps its own files: `$MINIML_HOME`, else `.miniml/` in the working folder."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Absolute path of miniml's folder; not created here."""
    return Path(os.environ.get("MINIML_HOME") or ".miniml").absolute()


def work_folder(stage: str, key: str) -> Path:
    """A folder for unfinished work of *stage*, found again by *key*; safe to delete at any time."""
    folder = home() / "work" / stage / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder
