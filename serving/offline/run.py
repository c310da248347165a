"""`miniml predict --output`: leads a run from its inputs to its manifest, or goes on with one."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from serving.canonical import open_canonicalizer
from serving.gpu import gpus_for
from serving.locate import locate, pin
from serving.offline.errors import OfflineError, OtherRun, UnreadableInput, WorkerLost
from serving.offline.inputs import find_inputs, survey
from serving.offline.job import (
    MANIFEST,
    RUN,
    AnswerOptions,
    OfflineJob,
    Piece,
    parse_job,
    refuse_another,
)
from serving.offline.parts import PartFile, finished_part, refuse_taken_names
from serving.offline.showing import Showing
from serving.offline.storage import absolute, get, is_local, names_in, put, remove_leavings
from serving.offline.worker import Duty, WorkerUpdate
from serving.offline.workers import connected, work, work_here
from serving.options import PredictOptions
from serving.package import PackageConfig, read_config

_log = logging.getLogger(__name__)
_NONE = "-"  # of --columns
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineResult:
    """What a run did. rows: in all; new_rows: in this run; bad_rows: without an answer.

    work_s: from the first worker's being ready to the last part; run_s: all of it.
    """

    folder: str
    digest: str
    rows: int
    new_rows: int
    bad_rows: int
    parts: int
    work_s: float
    run_s: float

    @property
    def texts_per_s(self) -> float | None:
        """Of this run, once workers were ready; None when nothing was left to do."""
        return self.new_rows / self.work_s if self.new_rows else None

    def document(self) -> dict[str, object]:
        """All of it, for JSON."""
        rate = self.texts_per_s
        return {**asdict(self), "texts_per_s": None if rate is None else round(rate, 2)}

    def __rich__(self) -> Table:
        """A line for each."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        rate = self.texts_per_s
        before = self.rows - self.new_rows
        rows = {
            "rows": f"{self.rows:,}" + (f", {before:,} of an earlier run" if before else ""),
            "without answer": f"{self.bad_rows:,}" if self.bad_rows else "",
            "texts/s": "" if rate is None else f"{rate:,.1f}",
            "part files": f"{self.parts:,}",
            "where": self.folder,
            "package": self.digest[:12],
        }
        for name, value in rows.items():
            if value:
                table.add_row(name, value)
        return table


def predict_offline(options: PredictOptions) -> OfflineResult:
    """Answer every row of the inputs, one output row each; or what an earlier run left over.

    Raises `OfflineError` with one sentence; what was finished stays.
    """
    began_s = time.monotonic()
    folder = absolute(options.output or "")
    package, digest = pin(options.package)
    here, _ = locate(package, digest=digest)
    config = read_config(here)
    open_canonicalizer(config.canonicalizer, allow_code=options.allow_code)
    asked = _asked(options, config)
    job = _begun(folder, package, digest, asked, options.input) or _begin(
        folder, package, digest, asked, config, options.input
    )
    done = _finished(folder, job)
    left = [piece.number for piece in job.pieces() if piece.number not in done]
    new_rows = job.rows - sum(part.rows for part in done.values())
    work_s = 0.0
    if left:
        # On this machine workers need not ask the registry, which costs them seconds and memory.
        place = package if options.cluster else str(here)
        duty = Duty(job=job, folder=folder, package=place, allow_code=options.allow_code)
        with Showing(job.rows, done=job.rows - new_rows) as showing, ExitStack() as stack:
            if len(left) == 1 and options.cluster is None:  # Ray takes longer to start than many do
                working = work_here(duty, left)
            else:
                stack.enter_context(connected(options.cluster))
                working = work(duty, left, gpus=round(gpus_for(config, "auto")))
            work_s = _listen(stack.enter_context(closing(working)), folder, done, showing)
            done |= _unheard(folder, job, done)
    return _seal(folder, job, done, new_rows=new_rows, work_s=work_s, began_s=began_s)


def _listen(
    working: Iterator[WorkerUpdate], folder: str, done: dict[int, PartFile], showing: Showing
) -> float:
    """Seconds that workers worked; what they write goes into *done*. Raises what they failed by."""
    started_s = ended_s = 0.0
    for told in working:
        if told.state == "failed":
            raise OfflineError(told.message, hint="The next run goes on where this one ended.")
        if told.state == "disk full":
            raise OSError(errno.ENOSPC, told.message, folder)
        if told.state == "ready":
            started_s = min(started_s or told.at_s, told.at_s)
        if told.part:
            done[told.piece] = told.part
            ended_s = max(ended_s, told.at_s)
        showing.rows(told.piece, told.rows)
    return ended_s - started_s


def _asked(options: PredictOptions, config: PackageConfig) -> AnswerOptions:
    pair = options.text_pair_column
    if config.text_pair != (pair is not None):
        raise OfflineError(
            "This model compares two texts; name the second one's column with --text-pair-column."
            if config.text_pair
            else "This model reads one text; leave out --text-pair-column."
        )
    if options.part_rows < 1:
        raise OfflineError(f"--part-rows is {options.part_rows}; a part has one row at least.")
    columns = tuple(name for name in options.columns if name != _NONE) if options.columns else None
    return AnswerOptions(
        text_column=options.text_column,
        text_pair_column=pair,
        columns=columns,
        scores=options.scores,
        prefix=options.prefix,
        on_bad_row=options.on_bad_row,
        part_rows=options.part_rows,
    )


def _begun(
    folder: str, package: str, digest: str, asked: AnswerOptions, addresses: Sequence[str]
) -> OfflineJob | None:
    """The run in *folder*, to go on with; None when nothing is there. Raises `OtherRun`."""
    names = names_in(folder)
    if RUN not in names:
        if names:
            raise OtherRun(f"{folder} holds other files ({names[0]}); choose another --output.")
        return None
    begun = parse_job(get(f"{folder}/{RUN}"), folder)
    refuse_another(begun, digest=digest, asked=asked, found=find_inputs(addresses))
    remove_leavings(folder)
    job = replace(begun, asked=asked, package=package)
    if job != begun:
        put(f"{folder}/{RUN}", job.to_bytes())
    return job


def _begin(  # noqa: PLR0913, PLR0917 - what a run is made of
    folder: str,
    package: str,
    digest: str,
    asked: AnswerOptions,
    config: PackageConfig,
    addresses: Sequence[str],
) -> OfflineJob:
    """A new run, written down."""
    found = find_inputs(addresses)
    with _surveying(sum(size for size, _ in found.values())) as told:
        inputs = survey(found, asked, told=told)
    for file in inputs:
        refuse_taken_names(file, asked, config)
    job = OfflineJob(package=package, digest=digest, asked=asked, inputs=inputs)
    if not job.rows:
        raise UnreadableInput("There is no row in the input.")
    put(f"{folder}/{RUN}", job.to_bytes())
    return job


@contextmanager
def _surveying(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Progress over the bytes of the inputs, where it takes a while."""
    columns = (TextColumn("Looking at the input"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total_bytes)
        yield partial(progress.advance, task)


def _unheard(folder: str, job: OfflineJob, done: Mapping[int, PartFile]) -> dict[int, PartFile]:
    """Parts whose worker died after it wrote them and before it said so. Raises `WorkerLost`."""
    missing = [piece for piece in job.pieces() if piece.number not in done]
    found = _whole(folder, job, missing)
    if len(found) < len(missing):
        raise WorkerLost(
            f"{len(missing) - len(found)} parts were not written.", hint="The next run goes on."
        )
    return found


def _finished(folder: str, job: OfflineJob) -> dict[int, PartFile]:
    """Number of a piece -> its part, of those that an earlier run finished."""
    found = _whole(folder, job, list(job.pieces()))
    if found:
        _log.info("Going on: %d of %d parts are there", len(found), sum(1 for _ in job.pieces()))
    return found


def _whole(folder: str, job: OfflineJob, pieces: Sequence[Piece]) -> dict[int, PartFile]:
    """Of *pieces*, the parts that are there and whole."""
    there = set(names_in(folder)) if pieces else set()
    candidates = [piece for piece in pieces if piece.name in there]

    def look(piece: Piece) -> tuple[int, PartFile | None]:
        return piece.number, finished_part(folder, job, piece)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {number: part for number, part in pool.map(look, candidates) if part}


def _seal(  # noqa: PLR0913 - the figures of a run, all by name
    folder: str,
    job: OfflineJob,
    done: Mapping[int, PartFile],
    *,
    new_rows: int,
    work_s: float,
    began_s: float,
) -> OfflineResult:
    """Write the manifest: all parts are there."""
    parts = [done[piece.number] for piece in job.pieces()]
    rows = sum(part.rows for part in parts)
    assert rows == job.rows, "rows were lost; this is a bug"
    document: dict[str, Any] = {
        "schema_version": 1,
        "kind": "predictions",
        "package_digest": job.digest,
        "package": job.package if not is_local(job.package) else Path(job.package).name,
        "rows": rows,
        "bad_rows": sum(part.bad_rows for part in parts),
        "parts": {
            part.name: {k: v for k, v in asdict(part).items() if k != "name"} for part in parts
        },
    }
    put(f"{folder}/{MANIFEST}", json.dumps(document, indent=1).encode() + b"\n")
    return OfflineResult(
        folder=folder,
        digest=job.digest,
        rows=rows,
        new_rows=new_rows,
        bad_rows=document["bad_rows"],
        parts=len(parts),
        work_s=round(work_s, 3),
        run_s=round(time.monotonic() - began_s, 3),
    )
