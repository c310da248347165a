"""The file through which a load client tells what it sees, while it sees it.

Rows of fixed size, so that a client pays next to nothing for them, whoever watches reads only what
is new, and a client that is interrupted leaves all that it wrote. What is known only at the end
stands in a second file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_ROW = struct.Struct("<IdddHfff")
_NOT_TOLD = float("nan")


class SampleRow(NamedTuple):
    """One request. body: which was sent. sent_s: since the load began; due, in an open loop.

    latency_ms: from then to the end of its answer. late_ms: sent that long after it was due.
    The last three are the server's own words, not a number when it said none.
    """

    body: int
    sent_s: float
    latency_ms: float
    late_ms: float
    status: int
    tokenize_ms: float = _NOT_TOLD
    queue_ms: float = _NOT_TOLD
    infer_ms: float = _NOT_TOLD


def rows_path(folder: Path) -> Path:
    """Where the rows are."""
    return folder / "rows"


def end_path(folder: Path) -> Path:
    """Where the end is told; there is none while the client runs, or when it broke."""
    return folder / "end.json"


class SampleFile:
    """Writes rows; in the client's process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = rows_path(folder).open("wb")
        self.count = 0

    def add(self, *row: float) -> None:
        """Keep one row, the fields of `SampleRow`."""
        self.count += 1
        self._file.write(_ROW.pack(*row))

    def flush(self) -> None:
        """Let who watches see all."""
        self._file.flush()

    def end(self, document: Mapping[str, Any]) -> None:
        """Nothing more comes."""
        self._file.close()
        part = end_path(self._folder).with_suffix(".part")
        part.write_text(json.dumps(document), encoding="utf-8")
        part.replace(end_path(self._folder))


class SampleReader:
    """Reads rows that were not read before; in the process of who watches."""

    def __init__(self, folder: Path) -> None:
        self._path = rows_path(folder)
        self._read_bytes = 0

    def new_rows(self) -> Iterator[SampleRow]:
        """Whole rows only; a client that was killed may have left a part of one."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
        whole = len(content) - len(content) % _ROW.size
        self._read_bytes += whole
        for fields in _ROW.iter_unpack(content[:whole]):
            yield SampleRow(*fields)


def read_end(folder: Path) -> Mapping[str, Any] | None:
    """What the client told at its end; None when it did not get there."""
    path = end_path(folder)
    return dict(json.loads(path.read_bytes())) if path.exists() else None
