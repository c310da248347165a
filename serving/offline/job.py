"""What a run is: its inputs, its package, what was asked; and the pieces that follow from it.

Kept as `run.json` in the output folder before anything is computed, so that the next run can go on
or must refuse. Pure but for its JSON.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from serving.offline.errors import OtherRun

RUN, MANIFEST = "run.json", "manifest.json"
SCHEMA_VERSION = 1
Format = Literal["parquet", "jsonl", "csv", "tsv", "txt"]
OnBadRow = Literal["fail", "null"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What the options say of the answers. columns: to carry along; None: all. part_rows: at most."""

    text_column: str
    text_pair_column: str | None = None
    columns: tuple[str, ...] | None = None
    scores: bool = False
    prefix: str = ""
    on_bad_row: OnBadRow = "fail"
    part_rows: int = 20_000

    def carried(self, there: Mapping[str, str]) -> list[str]:
        """Of the columns that are *there*, those that go along, in the file's order."""
        return [name for name in there if self.columns is None or name in self.columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One file, as it was when the run began. mark: changes when its content does.

    columns: name -> type; of JSON what its values are. begins: of text, the byte at which each
    piece does, unpacked.
    """

    address: str
    format: Format
    bytes: int
    mark: str
    rows: int
    columns: Mapping[str, str]
    begins: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows of one file, counted from 0, that make one part. begin: the byte, of text."""

    number: int
    file: int
    first: int
    rows: int
    begin: int = 0

    @property
    def name(self) -> str:
        """Of the part: which file of the run, its first and its last row."""
        return f"part-{self.file:05d}-{self.first:010d}-{self.first + self.rows - 1:010d}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineJob:
    """A run. package: the reference for ever; digest: of it. labels: the package's, in order."""

    package: str
    digest: str
    asked: AnswerOptions
    inputs: tuple[InputFile, ...]
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def rows(self) -> int:
        """In all files."""
        return sum(file.rows for file in self.inputs)

    def pieces(self) -> Iterator[Piece]:
        """Every row of every file is in one of them, in order."""
        size, count = self.asked.part_rows, itertools.count()
        for place, file in enumerate(self.inputs):
            begins = file.begins or itertools.repeat(0)
            for first, begin in zip(range(0, file.rows, size), begins, strict=False):
                rows = min(size, file.rows - first)
                yield Piece(number=next(count), file=place, first=first, rows=rows, begin=begin)

    def to_bytes(self) -> bytes:
        """`run.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"


def parse_job(content: bytes, folder: str) -> OfflineJob:
    """What `to_bytes` wrote. Raises `OtherRun`."""
    try:
        document: dict[str, Any] = json.loads(content)
        asked = document["asked"]
        columns = asked["columns"]
        return OfflineJob(
            package=document["package"],
            digest=document["digest"],
            asked=AnswerOptions(
                **{**asked, "columns": None if columns is None else tuple(columns)}
            ),
            schema_version={SCHEMA_VERSION: SCHEMA_VERSION}[document["schema_version"]],
            inputs=tuple(
                InputFile(**{**each, "begins": tuple(each["begins"])})
                for each in document["inputs"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise OtherRun(
            f"{folder}/{RUN} cannot be read by this miniml ({error}); choose another --output."
        ) from error


def refuse_another(
    begun: OfflineJob, *, digest: str, asked: AnswerOptions, found: Mapping[str, Any]
) -> None:
    """Raise `OtherRun` unless *begun* is the same run.

    found: address -> (bytes, mark), in order, of the inputs as they are now. Bad rows may be allowed
    later on: what is finished has none.
    """
    if begun.digest != digest:
        _refuse(f"with package {begun.digest[:12]}, not {digest[:12]}")
    for each in fields(AnswerOptions):
        before, now = getattr(begun.asked, each.name), getattr(asked, each.name)
        if before != now and (each.name, before) != ("on_bad_row", "fail"):
            option = "--" + each.name.replace("_", "-")
            _refuse(f"with {option} {_shown(before)}, not {_shown(now)}")
    before_files = {file.address: (file.bytes, file.mark) for file in begun.inputs}
    for address in [*before_files, *found]:
        if address not in found:
            _refuse(f"with the input {address}, too")
        if address not in before_files:
            _refuse(f"without the input {address}")
        if found[address] != before_files[address]:
            _refuse(f"when {address} was another file")
    if list(found) != list(before_files):
        _refuse("with its inputs in another order")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)


def _refuse(how: str) -> None:
    raise OtherRun(
        f"This output was begun {how}; ask for the same, or choose another --output.",
    )
