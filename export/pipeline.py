"""`miniml export`: checkpoint -> fp32 graph -> candidates -> gates -> sealed package."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from export.candidates import Candidate, Target, choose_candidates
from export.canonical import check_forms, reproducible
from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import UnusableOption
from export.exam import read_exam
from export.judging import judge
from export.machine import code_digest, machine, versions
from export.options import ExportOptions
from export.result import ExportResult
from export.signing import check_key, sign_package
from export.training_rows import read_training_rows
from export.tuned import check_tuning, tune
from export.writing import Naming, write_package
from registry import store
from registry.errors import ArtifactExists
from registry.home import work_folder
from registry.produce import Facts, copy_sealed, produce, recipe_digest
from registry.reference import check_alias, check_name
from registry.version import Version
from serving.calibration import calibrated_lanes
from serving.lanes import usable_cores
from serving.package import GATES, SCHEMA_VERSION, open_package

# Where a package is put does not change what it is; the checkpoint counts by its digest.
_NOT_IN_RECIPE = ("checkpoint", "output_name", "candidates", "alias", "output", "reuse", "sign_key")
# Exported, slimmed and fused, what a quantizer holds meanwhile, a dozen int8 graphs at a quarter
# each, the package, and it published.
_COPIES_OF_WEIGHTS = 9
_TRAINING_ROWS = 1000


def export_package(options: ExportOptions) -> ExportResult:
    """Make the candidates, judge them on the exam, seal the best that passes, and register it.

    Raises `ExportError`, `RegistryError` or `PackageError`, each with one sentence, for all that
    the user can mend, and OSError for a full disk. Cut short, it leaves no artifact, and run again
    it goes on with the candidates that were finished.
    """
    started_s = time.monotonic()
    _check(options)
    target = _target(options)
    options = replace(options, target=target)
    candidates, left_out = choose_candidates(options.candidates, target=target)
    source = store.resolve(options.checkpoint, kind="checkpoint")
    name = check_name(options.output_name or source.name)
    recipe = _recipe(options, source, candidates)
    # A signature is not part of what a package is, so one found may lack it: made anew, it has it.
    known = options.sign_key is None and reproducible(options.canonicalizer)
    reusable = options.reuse and known
    found = store.find(kind="package", name=name, recipe=recipe) if reusable else None
    if found is not None and options.output is not None:
        copy_sealed(store.fetch(found), options.output)
    naming = Naming(name=name, lineage=_lineage(source))
    package = found or _make(options, source, candidates, left_out, naming, recipe)
    if options.alias is not None:
        package = store.set_alias(package.reference, options.alias, kind="package")
    folder = store.fetch(package)
    if found is None and target == "cpu":
        # Served here, it will ask for its lanes; the answer is kept under miniml's home.
        calibrated_lanes(open_package(folder), usable_cores())
    return ExportResult(
        version=package,
        folder=folder,
        gates=json.loads((folder / GATES).read_bytes()),
        reused=found is not None,
        wall_s=time.monotonic() - started_s,
    )


def _make(  # noqa: PLR0913, PLR0917 - what is exported, how, and as what
    options: ExportOptions,
    source: Version,
    candidates: Sequence[Candidate],
    left_out: Mapping[str, str],
    naming: Naming,
    recipe: str,
) -> Version:
    """Export, judge, write, seal, sign and publish."""
    checkpoint = read_checkpoint(store.fetch(source))
    exam = read_exam(checkpoint, min_rows=options.min_exam_rows, limit=options.exam_limit)
    training = read_training_rows(source.lineage, checkpoint, limit=_TRAINING_ROWS)
    check_tuning(training, exam, options)
    check_forms(options.canonicalizer, exam)

    def build(folder: Path) -> Facts:
        with _workshop_folder(checkpoint, _workshop_key(options, source)) as work:
            judged = judge(checkpoint, exam, candidates, options, work, training, left_out)
            tuner = partial(tune, training=training, exam=exam, options=options)
            write_package(
                folder, checkpoint, exam, judged, naming=naming, tuner=tuner, options=options
            )
        params = {**_choices(options), "served": judged.served.name}
        return Facts(params=params, metrics=_numbers(judged.document()["served"]))

    def sign(folder: Path) -> None:
        if options.sign_key is not None:
            sign_package(folder, options.sign_key)

    return produce(
        build,
        kind="package",
        name=naming.name,
        recipe=recipe,
        lineage=naming.lineage,
        output=options.output,
        sealed=sign,
    )


def _lineage(source: Version) -> dict[str, str]:
    made_from = {"checkpoint": source.reference, "checkpoint_digest": source.digest}
    return {**source.lineage, **made_from}


@contextmanager
def _workshop_folder(checkpoint: Checkpoint, key: str) -> Iterator[Path]:
    """Where graphs are made: kept when the work is cut short, removed when it is done.

    A second export of the same at the same time gets a folder of its own. Raises OSError at once
    when the disk would be full half-way.
    """
    folder = work_folder("export", key)
    if shutil.disk_usage(folder).free < _COPIES_OF_WEIGHTS * checkpoint.weights_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tempfile.TemporaryDirectory(dir=folder.parent) as own:
                yield Path(own)
            return
        yield folder
        shutil.rmtree(folder)


def _workshop_key(options: ExportOptions, source: Version) -> str:
    """Digest of all that a finished step rests on; gates and budgets are applied afterwards."""
    parts = {
        "checkpoint": source.digest,
        "exam": [options.min_exam_rows, options.exam_limit],
        "flips": options.max_flip_percent,
        "versions": versions(),
        "code": code_digest(),
        "machine": machine(),
    }
    return recipe_digest(parts)[:16]


def _target(options: ExportOptions) -> Target:
    """Where the package will serve: as asked, or what is here."""
    import onnxruntime

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if options.target == "cuda" and not cuda:
        raise UnusableOption(
            "--target cuda, but this ONNX Runtime has no CUDA; pip install 'miniml[serving-gpu]' on a"
            " machine with a GPU, or leave the target out."
        )
    if options.target != "auto":
        return options.target
    return "cuda" if cuda else "cpu"


def _check(options: ExportOptions) -> None:
    """Raise `UnusableOption` for what cannot work, and `ArtifactExists`, before any work is done."""
    for field in ("max_accuracy_drop_points", "max_flip_percent", "max_batch_flip_percent"):
        value = getattr(options, field)
        if not (math.isfinite(value) and value >= 0):
            raise UnusableOption(f"{field} is {value}; it must be a number from 0 on.")
    if not (math.isfinite(options.budget_minutes) and options.budget_minutes > 0):
        raise UnusableOption(
            f"--budget-minutes is {options.budget_minutes}; it must be a number above 0."
        )
    if options.min_exam_rows < 1:
        raise UnusableOption(f"--min-exam-rows is {options.min_exam_rows}; it must be above 0.")
    if options.exam_limit < options.min_exam_rows:
        raise UnusableOption(
            f"--exam-limit is {options.exam_limit}, below --min-exam-rows"
            f" {options.min_exam_rows}; raise the one or lower the other."
        )
    if options.alias is not None:
        check_alias(options.alias)
    if options.sign_key is not None:
        check_key(options.sign_key)
    if options.output is not None and options.output.exists():
        raise ArtifactExists(f"{options.output} already exists; remove it or choose another one.")


def _numbers(served: Mapping[str, Any]) -> dict[str, float]:
    names = (
        "accuracy",
        "macro_f1",
        "label_flip_rate",
        "batch_flip_rate",
        "model_bytes",
        "texts_per_s",
    )
    return {name: float(served[name]) for name in names}


def _choices(options: ExportOptions) -> dict[str, object]:
    return {key: value for key, value in asdict(options).items() if key not in _NOT_IN_RECIPE}


def _recipe(options: ExportOptions, source: Version, candidates: Sequence[Candidate]) -> str:
    """Digest of all that determines the package; the machine does too, for it is measured on it."""
    return recipe_digest(
        {
            "schema_version": SCHEMA_VERSION,
            "checkpoint": source.digest,
            "candidates": [candidate.name for candidate in candidates],
            "options": _choices(options),
            "versions": versions(),
            "code": code_digest(),
            "machine": machine(),
        }
    )
