"""`miniml export`: checkpoint -> fp32 graph -> candidates -> gates -> sealed package."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.candidates import Candidate, choose_candidates
from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import UnusableOption
from export.exam import read_exam
from export.judging import judge
from export.options import ExportOptions
from export.result import ExportResult
from export.writing import machine, write_package
from registry import store
from registry.errors import ArtifactExists
from registry.home import work_folder
from registry.produce import Facts, copy_sealed, produce, recipe_digest
from registry.reference import check_alias, check_name
from registry.version import Version
from serving.package import GATES, SCHEMA_VERSION

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "optimum-onnx", "tokenizers", "torch", "transformers")
# Where a package is put does not change what it is; the checkpoint counts by its digest.
_NOT_IN_RECIPE = ("checkpoint", "output_name", "candidates", "alias", "output", "reuse")
# The exporter's graph and fp32, the quantizer's copy, both int8, the package, and it published.
_COPIES_OF_WEIGHTS = 6


def export_package(options: ExportOptions) -> ExportResult:
    """Make the candidates, judge them on the exam, seal the first that passes, and register it.

    Raises `ExportError`, `RegistryError` or `PackageError`, each with one sentence, for all that
    the user can mend, and OSError for a full disk. Cut short, it leaves no artifact.
    """
    started_s = time.monotonic()
    _check(options)
    candidates = choose_candidates(options.candidates)
    source = store.resolve(options.checkpoint, kind="checkpoint")
    name = check_name(options.output_name or source.name)
    recipe = _recipe(options, source, candidates)
    found = store.find(kind="package", name=name, recipe=recipe) if options.reuse else None
    if found is not None and options.output is not None:
        copy_sealed(store.fetch(found), options.output)
    package = found or _make(options, source, candidates, name=name, recipe=recipe)
    if options.alias is not None:
        package = store.set_alias(package.reference, options.alias, kind="package")
    folder = store.fetch(package)
    return ExportResult(
        version=package,
        folder=folder,
        gates=json.loads((folder / GATES).read_bytes()),
        reused=found is not None,
        wall_s=time.monotonic() - started_s,
    )


def _make(
    options: ExportOptions,
    source: Version,
    candidates: Sequence[Candidate],
    *,
    name: str,
    recipe: str,
) -> Version:
    """Export, judge, write, seal and publish."""
    checkpoint = read_checkpoint(store.fetch(source))
    exam = read_exam(checkpoint, min_rows=options.min_exam_rows, limit=options.exam_limit)
    lineage = {
        **source.lineage,
        "checkpoint": source.reference,
        "checkpoint_digest": source.digest,
    }

    def build(folder: Path) -> Facts:
        with tempfile.TemporaryDirectory(dir=_roomy_folder(checkpoint)) as work:
            judged = judge(checkpoint, exam, candidates, options, Path(work))
            write_package(folder, checkpoint, exam, judged, name=name, lineage=lineage)
        params = {**_choices(options), "served": judged.served.name}
        return Facts(params=params, metrics=_numbers(judged.document()["served"]))

    return produce(
        build, kind="package", name=name, recipe=recipe, lineage=lineage, output=options.output
    )


def _roomy_folder(checkpoint: Checkpoint) -> Path:
    """Where graphs are made. Raises OSError at once when the disk would be full half-way."""
    folder = work_folder("export", "graphs")
    if shutil.disk_usage(folder).free < _COPIES_OF_WEIGHTS * checkpoint.weights_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    return folder


def _check(options: ExportOptions) -> None:
    """Raise `UnusableOption` for what cannot work, and `ArtifactExists`, before any work is done."""
    for field in ("max_accuracy_drop_points", "max_flip_percent", "max_batch_flip_percent"):
        value = getattr(options, field)
        if not (math.isfinite(value) and value >= 0):
            raise UnusableOption(f"{field} is {value}; it must be a number from 0 on.")
    if options.min_exam_rows < 1:
        raise UnusableOption(f"--min-exam-rows is {options.min_exam_rows}; it must be above 0.")
    if options.exam_limit < options.min_exam_rows:
        raise UnusableOption(
            f"--exam-limit is {options.exam_limit}, below --min-exam-rows"
            f" {options.min_exam_rows}; raise the one or lower the other."
        )
    if options.alias is not None:
        check_alias(options.alias)
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
            "versions": {name: version(name) for name in _LIBRARIES},
            "machine": machine(),
        }
    )
