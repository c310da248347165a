"""A piece of a file as a table of what goes along, its texts, and which rows have none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import parquet

from serving.offline.errors import UnreadableInput
from serving.offline.inputs import MIXED, open_rows
from serving.offline.job import AnswerOptions, InputFile, Piece
from serving.offline.lines import Row
from serving.offline.storage import look, reading

_TYPES = {"string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows of a piece, in order. table: the columns that go along. faults: row -> why it has no text.

    texts, pairs: of each row, whatever stands there where it has a fault.
    """

    table: pa.Table
    texts: Sequence[Any]
    pairs: Sequence[Any] | None
    faults: dict[int, str]


def read_block(file: InputFile, piece: Piece, asked: AnswerOptions) -> Block:
    """The rows of *piece*. Raises `UnreadableInput`, also when the file has changed."""
    if look(file.address) != (file.bytes, file.mark):
        raise UnreadableInput(
            f"{file.address} was changed after the run began; choose another --output."
        )
    broken: dict[int, str] = {}
    wanted = list(filter(None, (asked.text_column, asked.text_pair_column)))
    names = list(dict.fromkeys([*asked.carried(file.columns), *wanted]))
    if file.format == "parquet":
        table = _parquet_rows(file, piece, names)
        texts = {name: table.column(name).to_pylist() for name in wanted}
    else:
        rows = _text_rows(file, piece)
        broken = {place: row for place, row in enumerate(rows) if isinstance(row, str)}
        table = pa.table({name: _column(rows, name, file.columns[name]) for name in names})
        texts = {name: [_value(row, name) for row in rows] for name in wanted}
    if table.num_rows != piece.rows:
        raise UnreadableInput(
            f"{file.address} gave {table.num_rows} rows from {piece.first} on, not {piece.rows}."
        )
    pairs = texts[asked.text_pair_column] if asked.text_pair_column else None
    return Block(
        table=table.select(asked.carried(file.columns)),
        texts=texts[asked.text_column],
        pairs=pairs,
        faults=_faults(texts, broken),
    )


def _faults(columns: dict[str, list[Any]], broken: dict[int, str]) -> dict[int, str]:
    """As the server's doors have it: a text is a string with something in it."""
    found = dict(broken)
    for name, values in columns.items():
        for place, value in enumerate(values):
            if place in found:
                continue
            if value is None:
                found[place] = f"has no {name}"
            elif not isinstance(value, str):
                found[place] = f"has a {name} that is no text"
            elif not value or value.isspace():
                found[place] = f"has an empty {name}"
    return found


def _text_rows(file: InputFile, piece: Piece) -> list[Row]:
    with reading(file.address) as opened:
        rows = open_rows(opened, file.format, file.address, piece.begin)
        return [row for _, row in itertools.islice(rows, piece.rows)]


def _value(row: Row, name: str) -> Any:
    return None if isinstance(row, str) else row.get(name)


def _column(rows: Sequence[Row], name: str, kind: str) -> pa.Array:
    values = [_value(row, name) for row in rows]
    if kind == MIXED:
        encode = msgspec.json.encode
        values = [None if value is None else encode(value).decode() for value in values]
    return pa.array(values, type=_TYPES.get(kind, pa.string()))


def _parquet_rows(file: InputFile, piece: Piece, names: list[str]) -> pa.Table:
    """The rows of *piece*, from the row groups that hold them."""
    sizes = _group_sizes(file.address, file.mark)
    found, begin = [], 0
    for group, size in enumerate(sizes):
        low, high = max(piece.first, begin), min(piece.first + piece.rows, begin + size)
        if low < high:
            table = _group(file.address, file.mark, group, tuple(names))
            found.append(table.slice(low - begin, high - low))
        begin += size
    return pa.concat_tables(found)


@lru_cache(maxsize=64)
def _group_sizes(address: str, mark: str) -> list[int]:
    del mark  # of the content, for the cache's key
    with reading(address) as opened:
        metadata = parquet.ParquetFile(opened).metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


# The last one is kept: a file of one large group is a piece after the other of it.
@lru_cache(maxsize=1)
def _group(address: str, mark: str, group: int, names: tuple[str, ...]) -> pa.Table:
    del mark
    with reading(address) as opened:
        return parquet.ParquetFile(opened).read_row_group(group, columns=list(names))
