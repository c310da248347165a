"""File formats: bytes in, rows out, one at a time. A row is a dictionary; missing keys are missing."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from training.errors import ColumnError, SourceError

Row = dict[str, Any]
_SAMPLE_LINES = 1000
_JSON_CHUNK_CHARS = 1 << 16
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """encoding: of text files. header: None to infer. wanted: columns that were asked for by name."""

    encoding: str
    header: bool | None
    wanted: tuple[str, ...]


def read_csv(file: IO[bytes], address: str, options: ReadOptions) -> Iterator[Row]:
    """Comma-separated, quoted fields may hold newlines."""
    return _read_table(file, address, options, delimiter=",")


def read_tsv(file: IO[bytes], address: str, options: ReadOptions) -> Iterator[Row]:
    """Tab-separated; quotes are plain characters unless they always come in pairs."""
    return _read_table(file, address, options, delimiter="\t")


def read_jsonl(file: IO[bytes], address: str, options: ReadOptions) -> Iterator[Row]:
    """One JSON object a line."""
    for number, line in enumerate(_text(file, options.encoding), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{address}, line {number} is not JSON ({error}).") from error
        yield _object(row, f"{address}, line {number}")


def read_json(file: IO[bytes], address: str, options: ReadOptions) -> Iterator[Row]:
    """A list of objects, decoded one by one; or one object of equally long lists."""
    text = _text(file, options.encoding)
    start = text.read(_JSON_CHUNK_CHARS)
    if start.lstrip().startswith("["):
        for number, item in enumerate(_list_items(start.lstrip()[1:], text, address), 1):
            yield _object(item, f"{address}, item {number}")
        return
    try:
        columns = json.loads(start + text.read())
    except ValueError as error:
        # Lines of objects under the name .json are common enough to be read as what they are.
        if start.lstrip().startswith("{") and "\n" in start.strip():
            yield from read_jsonl(_again(file), address, options)
            return
        raise SourceError(f"{address} is not JSON ({error}).") from error
    if not isinstance(columns, dict) or not all(isinstance(v, list) for v in columns.values()):
        raise SourceError(f"{address} is neither a list of objects nor an object of lists.")
    for values in zip(*columns.values(), strict=False):
        yield dict(zip(columns, values, strict=True))


def read_parquet(file: IO[bytes], address: str, options: ReadOptions) -> Iterator[Row]:
    """Parquet, a batch of rows at a time."""
    del options  # a Parquet file knows its names and encoding
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{address} is not a Parquet file ({error}).") from error
    for batch in table.iter_batches(batch_size=1000):
        yield from batch.to_pylist()


def _read_table(
    file: IO[bytes], address: str, options: ReadOptions, *, delimiter: str
) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a review may be longer than csv's default of 128 KiB
    text = _text(file, options.encoding)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    lines: Iterator[str] = iter(text)
    if delimiter == "\t":
        sample = list(itertools.islice(lines, _SAMPLE_LINES))
        quoting = csv.QUOTE_MINIMAL if _quotes_in_pairs(sample) else csv.QUOTE_NONE
        lines = itertools.chain(sample, lines)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    try:
        first = next(reader, None)
        if first is None:
            return
        if has_header(first, options):
            names = _column_names(first, address)
        else:
            names = [str(i) for i in range(len(first))]
            yield dict(zip(names, first, strict=True))
        for cells in reader:
            if len(cells) > len(names):
                raise SourceError(
                    f"{address}, line {reader.line_num} has {len(cells)} fields, not {len(names)};"
                    " is a quote missing, or is it separated by something else?"
                )
            if cells:
                yield dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise SourceError(f"{address}, line {reader.line_num} cannot be read ({error}).") from error


def has_header(first: list[str], options: ReadOptions) -> bool:
    """Whether the first line names the columns.

    It does when a column that was asked for stands in it; else when it looks like names: short, all
    different, no number, none but the first empty.
    """
    if options.header is not None:
        return options.header
    if options.wanted:
        if set(options.wanted) <= set(first):
            return True
        if all(name.isdigit() for name in options.wanted):
            return False
    cells = [cell.strip() for cell in first]
    return (
        len(set(cells)) == len(cells)
        and all(cells[1:])
        and all(len(cell) <= _LONGEST_NAME and not _is_number(cell) for cell in cells)
    )


def _column_names(first: list[str], address: str) -> list[str]:
    names = [name.strip() for name in first]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ColumnError(f"{address} names the column {twice[0]!r} twice; rename one.")
    return names


def _quotes_in_pairs(lines: list[str]) -> bool:
    """Whether reading quotes as quotes leaves rows of equal width, as it does when they are.

    A lone quote would swallow fields and lines up to the next one. The last row of the sample may
    be cut off, so it does not count.
    """
    if not any(line.startswith('"') or '\t"' in line for line in lines):
        return False
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter="\t", strict=True) if row]
    except csv.Error:
        return False
    return len(set(widths[:-1])) <= 1 and widths[0] > 1


def _list_items(buffer: str, text: io.TextIOBase, address: str) -> Iterator[Any]:
    """The items of a JSON list whose opening bracket was read; *buffer* is what was read after it."""
    decoder = json.JSONDecoder()
    at = 0
    while True:
        while buffer[at : at + 1] and buffer[at] in " \t\r\n,":
            at += 1
        if buffer[at : at + 1] == "]":
            return
        try:
            item, at = decoder.raw_decode(buffer, at)
        except ValueError as error:
            rest = buffer[at:]
            more = text.read(max(_JSON_CHUNK_CHARS, len(rest)))  # doubling: long items stay linear
            if not more:
                raise SourceError(f"{address} is not a whole JSON list ({error}).") from error
            buffer, at = rest + more, 0
        else:
            yield item


def _text(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Text with every newline as it is; a byte order mark is not part of it."""
    name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        return io.TextIOWrapper(file, encoding=name, newline="")
    except LookupError as error:
        raise SourceError(
            f"{encoding!r} is not an encoding; try utf-8, latin-1, cp1252."
        ) from error


def _again(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise SourceError(f"{where} is not an object.")
    return row


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[IO[bytes], str, ReadOptions], Iterator[Row]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_tsv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}
