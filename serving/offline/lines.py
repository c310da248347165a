"""Rows of text files, and the byte at which each ends: lines, JSON objects, fields.

A row is a dictionary, or a sentence on why it is none. Rows count from 0. Bytes are split at
newlines only: U+2028 and its kin are part of a text.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import msgspec

from serving.offline.errors import UnreadableInput

Row = Mapping[str, Any] | str
TEXT = "text"  # the one column of a .txt
_BOM = b"\xef\xbb\xbf"


class CountedLines:
    """The lines of *file* from where it stands, as text, and `end`: the byte after the last one."""

    def __init__(self, file: IO[bytes], address: str) -> None:
        self._file, self.address = file, address
        self.end = file.tell()

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            begins = self.end == 0
            self.end += len(line)
            try:
                yield (line.removeprefix(_BOM) if begins else line).decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnreadableInput(
                    f"{self.address} is not UTF-8 at byte {self.end - len(line) + error.start};"
                    " convert it first."
                ) from error


def header(file: IO[bytes], address: str, *, tabs: bool) -> tuple[str, ...]:
    """The column names in the first line; *file* then stands behind it. Raises `UnreadableInput`."""
    file.seek(0)
    lines = CountedLines(file, address)
    names = next(_fields(lines, tabs=tabs), [])
    file.seek(lines.end)
    names = [name.strip() for name in names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnreadableInput(f"{address} names the column {twice[0]!r} twice; rename one.")
    return tuple(names)


def rows_of_text(lines: CountedLines) -> Iterator[tuple[int, Row]]:
    """A row a line, also an empty one."""
    for line in lines:
        yield lines.end, {TEXT: line.removesuffix("\n").removesuffix("\r")}


def rows_of_json(lines: CountedLines) -> Iterator[tuple[int, Row]]:
    """A row an object; blank lines are none."""
    decode = msgspec.json.Decoder().decode
    for line in lines:
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            row = f"is not JSON ({error})"
        yield lines.end, row if isinstance(row, dict | str) else "is not a JSON object"


def rows_of_fields(
    lines: CountedLines, names: tuple[str, ...], *, tabs: bool
) -> Iterator[tuple[int, Row]]:
    """A row a record, missing fields null; blank lines are none. Raises `UnreadableInput`."""
    for fields in _fields(lines, tabs=tabs):
        if not fields:
            continue
        if len(fields) > len(names):
            raise UnreadableInput(
                f"{lines.address} has {len(fields)} fields, not {len(names)}, before byte {lines.end};"
                " is a quote missing, or is it separated by something else?"
            )
        yield lines.end, dict(zip(names, fields, strict=False))


def _fields(lines: CountedLines, *, tabs: bool) -> Iterator[list[str]]:
    """Of each record; `lines.end` is then where it ends: csv takes no line before it needs it."""
    if tabs:  # quotes are plain characters: a lone one would swallow rows up to the next
        for line in lines:
            bare = line.rstrip("\r\n")
            yield bare.split("\t") if bare else []
        return
    csv.field_size_limit(sys.maxsize)  # a review may be longer than csv's default of 128 KiB
    try:
        # Strict: else a quote that is never closed would swallow the rest of the file.
        yield from csv.reader(lines, strict=True)
    except csv.Error as error:
        raise UnreadableInput(
            f"{lines.address} cannot be read before byte {lines.end} ({error}); mend its quotes."
        ) from error
