"""The user's own texts, from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.errors import NoTexts

Row = Mapping[str, str]  # {"text": ...} or {"text": ..., "text_pair": ...}


def read_rows(path: Path) -> list[Row]:
    """The texts of a `.jsonl` file (objects with `text`, optionally `text_pair`), else one a line.

    Raises `NoTexts` when there is no such file or no text in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 is text
    except (OSError, UnicodeDecodeError) as error:
        raise NoTexts(f"{path} cannot be read ({error}); give a .txt or .jsonl file.") from error
    rows = [_row(line, path) for line in lines if line.strip()]
    if not rows:
        raise NoTexts(f"{path} holds no text; give one text a line, or JSONL with a `text` field.")
    return rows


def _row(line: str, path: Path) -> Row:
    if path.suffix != ".jsonl":
        return {"text": line}
    try:
        document: Any = json.loads(line)
        keys = ("text", "text_pair") if document.get("text_pair") else ("text",)
        return {key: str(document[key]) for key in keys}
    except (ValueError, AttributeError, KeyError) as error:
        raise NoTexts(f"{path}: {line[:60]!r} is not a JSON object with a `text` field.") from error
