"""One worker: an actor of Ray Data that does a piece after the other, and tells how far it is.

What goes wrong comes back as a value, so that it can be told in one sentence. A worker that dies is
started again by Ray, and its piece done again; of what it tells the second time Ray hands out only
what was not heard the first time, by its place. So what is told of a piece is always as much.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from serving.engine import Prediction
from serving.errors import EngineFailed, ServingError
from serving.lanes import usable_cores
from serving.locate import locate
from serving.offline.answering import Answerer, Question, lanes_for
from serving.offline.errors import BadRow
from serving.offline.job import OfflineJob, Piece
from serving.offline.parts import PartFile, write_part
from serving.offline.rows import Block, read_block
from serving.package import open_package

_TELLINGS = 20  # of a piece, on its way
State = Literal["ready", "going on", "written", "failed", "disk full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUpdate:
    """What a worker says. at_s: Unix time. rows: of *piece* done so far. part: once it is written.

    message: of what failed.
    """

    state: State
    piece: int
    rows: int = 0
    part: PartFile | None = None
    message: str = ""
    at_s: float

    def to_batch(self) -> dict[str, list[Any]]:
        """One row for Ray Data, whose columns are always the same."""
        part = self.part or PartFile(name="", rows=0, bad_rows=0, bytes=0, sha256="")
        return {name: [value] for name, value in {**asdict(self), "part": asdict(part)}.items()}


def heard(row: Mapping[str, Any]) -> WorkerUpdate:
    """What `to_batch` said."""
    part = PartFile(**row["part"])
    return WorkerUpdate(**{**row, "part": part if part.name else None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What every worker is told. folder: where parts go. package: where workers find it.

    allow_code: as in `Engine`.
    """

    job: OfflineJob
    folder: str
    package: str
    allow_code: str | None


class Worker:
    """Called by Ray Data with the number of a piece. cores: that Ray gave it."""

    def __init__(self, duty: Duty, cores: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._duty, self._job, self._cores = duty, duty.job, cores
        self._pieces = list(duty.job.pieces())
        self._answerer: Answerer | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """What is to be told, as it comes."""
        for number in map(int, batch["item"]):
            piece = self._pieces[number]
            try:
                if self._answerer is None:
                    self._answerer = self._open()
                yield WorkerUpdate(state="ready", piece=number, at_s=time.time()).to_batch()
                yield from self._do(piece, self._answerer)
            except ServingError as error:
                message = " ".join(filter(None, (str(error), error.hint)))
                yield _failed(piece, "failed", message)
            except OSError as error:  # of `put`; no other error of the disk comes as it is
                yield _failed(piece, "disk full", str(error))

    def _open(self) -> Answerer:
        folder, _ = locate(self._duty.package, digest=self._job.digest)
        package = self._package = open_package(folder)
        cores = max(1, min(self._cores, usable_cores()))
        return Answerer(package, lanes_for(package, cores), allow_code=self._duty.allow_code)

    def _do(self, piece: Piece, answerer: Answerer) -> Iterator[dict[str, list[Any]]]:
        job = self._job
        block = read_block(job.inputs[piece.file], piece, job.asked)
        self._refuse_faults(piece, block.faults)
        answers: list[Prediction | str] = [""] * piece.rows
        for place, fault in block.faults.items():
            answers[place] = fault
        places = [place for place in range(piece.rows) if place not in block.faults]
        done, step = len(block.faults), max(1, piece.rows // _TELLINGS)
        for at, outcome in answerer.answer(_questions(block, places)):
            if isinstance(outcome, EngineFailed):
                fault = answers[places[at]] = f"failed: {outcome}"
                self._refuse_faults(piece, {places[at]: fault})
            else:
                answers[places[at]] = outcome
            done += 1
            if done % step == 0:
                going_on = WorkerUpdate(
                    state="going on", piece=piece.number, rows=done, at_s=time.time()
                )
                yield going_on.to_batch()
        assert done == piece.rows, "a row has no answer; this is a bug"
        part = write_part(self._duty.folder, job, piece, self._package.config, block.table, answers)
        written = WorkerUpdate(
            state="written", piece=piece.number, rows=piece.rows, part=part, at_s=time.time()
        )
        yield written.to_batch()

    def _refuse_faults(self, piece: Piece, faults: Mapping[int, str]) -> None:
        """Raise `BadRow` for the first of them, where that was asked for."""
        if faults and self._job.asked.on_bad_row == "fail":
            place = min(faults)
            address = self._job.inputs[piece.file].address
            raise BadRow(
                f"{address}, row {piece.first + place} (from 0) {faults[place]}.",
                hint="Mend it and start anew, or go on with --on-bad-row null.",
            )


def _questions(block: Block, places: list[int]) -> list[Question]:
    pairs = block.pairs
    return [(block.texts[at], None if pairs is None else pairs[at]) for at in places]


def _failed(piece: Piece, state: State, message: str) -> dict[str, list[Any]]:
    return WorkerUpdate(
        state=state, piece=piece.number, message=message, at_s=time.time()
    ).to_batch()
