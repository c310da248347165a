"""Parts: answers beside the columns that go along, as Parquet, whole or not at all.

What a part is stands in its schema's metadata under `miniml`, as JSON: the package's digest, the
input and its rows; so it is known for what it is when it lies alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from serving.engine import Prediction
from serving.offline.errors import UnreadableInput
from serving.offline.job import AnswerOptions, InputFile, OfflineJob, Piece
from serving.offline.storage import get, put
from serving.package import PackageConfig

_KEY = b"miniml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A part that is written. bad_rows: without an answer."""

    name: str
    rows: int
    bad_rows: int
    bytes: int
    sha256: str


def refuse_taken_names(file: InputFile, asked: AnswerOptions, config: PackageConfig) -> None:
    """Raise `UnreadableInput` when a column that goes along is named as one of the answer's."""
    ours = _answer_schema(config, asked).names
    taken = [name for name in asked.carried(file.columns) if name in ours]
    if taken:
        raise UnreadableInput(
            f"{file.address} has a column {taken[0]!r}, which the answer has, too.",
            hint="Say --prefix predicted_, or leave it out: --columns names those to keep.",
        )


def write_part(  # noqa: PLR0913, PLR0917 - what a part is made of
    folder: str,
    job: OfflineJob,
    piece: Piece,
    config: PackageConfig,
    carried: pa.Table,
    answers: Sequence[Prediction | str],
) -> PartFile:
    """Put the part of *piece* into *folder*: a row for each of *carried* and its answer.

    answers: of each row; a sentence where it has none. Raises what `put` does.
    """
    answered = _answer_table(answers, config, job.asked)
    for name in answered.column_names:
        carried = carried.append_column(answered.schema.field(name), answered.column(name))
    metadata = {**(carried.schema.metadata or {}), _KEY: json.dumps(_about(job, piece)).encode()}
    buffer = io.BytesIO()
    parquet.write_table(carried.replace_schema_metadata(metadata), buffer, compression="zstd")
    content = buffer.getvalue()
    put(f"{folder}/{piece.name}", content)
    bad_rows = sum(isinstance(answer, str) for answer in answers)
    return _part_file(piece, bad_rows, content)


def finished_part(folder: str, job: OfflineJob, piece: Piece) -> PartFile | None:
    """The part of *piece*, if it is there and is what it should be."""
    content = get(f"{folder}/{piece.name}")
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
    except pa.ArrowInvalid:
        return None
    about = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
    if file.metadata.num_rows != piece.rows or about != _about(job, piece):
        return None
    name = job.asked.prefix + "error"
    bad_rows = 0
    if name in file.schema_arrow.names and job.asked.on_bad_row == "null":
        bad_rows = piece.rows - file.read(columns=[name]).column(name).null_count
    return _part_file(piece, bad_rows, content)


def _part_file(piece: Piece, bad_rows: int, content: bytes) -> PartFile:
    return PartFile(
        name=piece.name,
        rows=piece.rows,
        bad_rows=bad_rows,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _about(job: OfflineJob, piece: Piece) -> dict[str, Any]:
    file = job.inputs[piece.file]
    return {
        "package_digest": job.digest,
        "input": file.address,
        "input_mark": file.mark,
        "first_row": piece.first,
        "rows": piece.rows,
    }


def _answer_schema(config: PackageConfig, asked: AnswerOptions) -> pa.Schema:
    scored = pa.struct([("label", pa.string()), ("score", pa.float64())])
    columns = [("label", pa.string()), ("score", pa.float64())]
    if config.task == "multi_label":
        columns.append(("labels", pa.list_(scored)))
    if asked.scores:
        columns.append(("scores", pa.struct([(label, pa.float64()) for label in config.labels])))
    if asked.on_bad_row == "null":
        columns.append(("error", pa.string()))
    return pa.schema([(asked.prefix + name, kind) for name, kind in columns])


def _answer_table(
    answers: Sequence[Prediction | str], config: PackageConfig, asked: AnswerOptions
) -> pa.Table:
    schema = _answer_schema(config, asked)
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = _VALUES[name.removeprefix(asked.prefix)]
        values = [value(answer, config) for answer in answers]
        columns.append(pa.array(values, type=kind))
    return pa.table(columns, schema=schema)


def _label(answer: Prediction | str, _config: PackageConfig) -> str | None:
    return None if isinstance(answer, str) else answer.label


def _score(answer: Prediction | str, _config: PackageConfig) -> float | None:
    return None if isinstance(answer, str) else answer.score


def _labels(answer: Prediction | str, _config: PackageConfig) -> list[dict[str, Any]] | None:
    if isinstance(answer, str):
        return None
    return [{"label": label, "score": score} for label, score in answer.labels or ()]


def _scores(answer: Prediction | str, config: PackageConfig) -> dict[str, float] | None:
    if isinstance(answer, str):
        return None
    return dict(zip(config.labels, answer.scores, strict=True))


def _error(answer: Prediction | str, _config: PackageConfig) -> str | None:
    return answer if isinstance(answer, str) else None


# The endpoint's own names for what is in an answer (`rendering.PredictAnswer`).
_VALUES: Mapping[str, Callable[[Prediction | str, PackageConfig], Any]] = {
    "label": _label,
    "score": _score,
    "labels": _labels,
    "scores": _scores,
    "error": _error,
}
