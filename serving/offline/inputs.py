"""Which files there are to read, what is in them, and where their pieces begin.

Parquet tells its rows at its end. Text is read through once: only so is it known how many rows it
has, where a piece can begin, and of JSON of what type a column is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet

from serving.offline.errors import BadRow, UnreadableInput
from serving.offline.job import AnswerOptions, Format, InputFile
from serving.offline.lines import (
    TEXT,
    CountedLines,
    Row,
    header,
    rows_of_fields,
    rows_of_json,
    rows_of_text,
)
from serving.offline.storage import absolute, find, look, reading

FORMATS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
}
_AT_ONCE = 16  # files looked at: a store answers slowly, but many at a time
# What a value of JSON is in Arrow; what is nested, or one thing here and another there, stays JSON.
_KINDS: Mapping[type, str] = {str: "string", bool: "bool", int: "int64", float: "double"}
MIXED = "json"
_LARGEST = 2**63


def find_inputs(addresses: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Address -> (bytes, mark) of every file that *addresses* mean, in order.

    Raises `UnreadableInput` when there is none, or one is of no format known.
    """
    files: dict[str, None] = {}
    for address in addresses:
        found = find(absolute(address))
        if not found:
            raise UnreadableInput(f"There is no file {address}; check the path.")
        files.update(dict.fromkeys(found))
    for name in files:
        format_of(name)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(files, pool.map(look, files), strict=True))


def format_of(address: str) -> Format:
    """By its name. Raises `UnreadableInput`."""
    path = PurePath(address.removesuffix(".gz"))
    found = FORMATS.get(path.suffix.lower())
    if found is None or (found == "parquet" and address.endswith(".gz")):
        known = ", ".join(FORMATS)
        raise UnreadableInput(f"{address} is none of {known}; text may end in .gz.")
    return found


def survey(
    found: Mapping[str, tuple[int, str]], asked: AnswerOptions, *, told: Callable[[int], None]
) -> tuple[InputFile, ...]:
    """Each file with its rows and pieces. told: is called with the bytes of each when it is known.

    Raises `UnreadableInput`, and `BadRow` for a line that is not JSON where that is not allowed.
    """

    def look_into(item: tuple[str, tuple[int, str]]) -> InputFile:
        address, (size, mark) = item
        file = _surveyed(address, size, mark, asked)
        _refuse_missing(file, asked)
        told(size)
        return file

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(look_into, found.items()))


def open_rows(file: IO[bytes], kind: Format, address: str, begin: int) -> Iterator[tuple[int, Row]]:
    """The rows of text from byte *begin* on, each with the byte at which it ends."""
    if kind == "txt":
        file.seek(begin)
        return rows_of_text(CountedLines(file, address))
    if kind == "jsonl":
        file.seek(begin)
        return rows_of_json(CountedLines(file, address))
    tabs = kind == "tsv"
    names = header(file, address, tabs=tabs)
    if begin:
        file.seek(begin)
    return rows_of_fields(CountedLines(file, address), names, tabs=tabs)


def _surveyed(address: str, size: int, mark: str, asked: AnswerOptions) -> InputFile:
    kind = format_of(address)
    with reading(address) as file:
        if kind == "parquet":
            rows, columns = _parquet(file, address)
            begins: list[int] = []
        else:
            rows, columns, begins = _text(file, kind, address, asked)
    return InputFile(
        address=address,
        format=kind,
        bytes=size,
        mark=mark,
        rows=rows,
        columns=columns,
        begins=tuple(begins),
    )


def _parquet(file: IO[bytes], address: str) -> tuple[int, dict[str, str]]:
    try:
        opened = parquet.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UnreadableInput(f"{address} is not a Parquet file ({error}).") from error
    schema = opened.schema_arrow
    columns = {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    return opened.metadata.num_rows, columns


def _text(
    file: IO[bytes], kind: Format, address: str, asked: AnswerOptions
) -> tuple[int, dict[str, str], list[int]]:
    """Rows, columns and where pieces begin."""
    columns: dict[str, str] = {}
    if kind in ("csv", "tsv"):
        columns = dict.fromkeys(header(file, address, tabs=kind == "tsv"), "string")
        begin = file.tell()
    else:
        columns, begin = ({TEXT: "string"} if kind == "txt" else {}), 0
    rows, begins = 0, [begin]
    for end, row in open_rows(file, kind, address, 0 if kind in ("txt", "jsonl") else begin):
        if kind == "jsonl":
            _learn(columns, row, address, rows, asked)
        rows += 1
        if rows % asked.part_rows == 0:
            begins.append(end)
    return rows, {name: found or "string" for name, found in columns.items()}, begins


def _learn(
    columns: dict[str, str], row: Row, address: str, number: int, asked: AnswerOptions
) -> None:
    """Widen the types of *columns* by the values of one object; "" is of nulls alone."""
    if isinstance(row, str):
        if asked.on_bad_row == "fail":
            raise BadRow(
                f"{address}, row {number} (from 0) {row}.", hint="Or say --on-bad-row null."
            )
        return
    for name, value in row.items():
        before = columns.setdefault(name, "")
        if value is not None:
            columns[name] = _widened(before, _kind(value))


def _kind(value: Any) -> str:
    if type(value) is int and not -_LARGEST <= value < _LARGEST:
        return MIXED
    return _KINDS.get(type(value), MIXED)


def _widened(before: str, now: str) -> str:
    if before in ("", now):
        return now
    return "double" if {before, now} == {"int64", "double"} else MIXED


def _refuse_missing(file: InputFile, asked: AnswerOptions) -> None:
    """Raise `UnreadableInput` unless every column that was named is there."""
    if not file.rows:
        return
    there = ", ".join(file.columns) or "none"
    named = filter(None, (asked.text_column, asked.text_pair_column, *(asked.columns or ())))
    for name in named:
        if name not in file.columns:
            raise UnreadableInput(
                f"{file.address} has no column {name!r}; there are: {there}.",
                hint="Name it with --text-column.",
            )
    for name in filter(None, (asked.text_column, asked.text_pair_column)):
        kind = file.columns[name]
        if file.format == "parquet" and "string" not in kind and kind != "null":
            raise UnreadableInput(f"{file.address}: the column {name!r} holds {kind}, not texts.")
