"""`miniml train`: a dataset and a pretrained encoder -> a checkpoint that was examined.

About a tenth of the train split is set aside to choose the best weights and to stop early; the
test split is looked at once, at the end, with the weights that are saved.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table as RichTable

from registry import store
from registry.home import work_folder
from registry.produce import Facts, copy_sealed, produce, recipe_digest
from registry.reference import check_name
from registry.version import Version
from training.base_model import find_base_model
from training.check import check
from training.checkpoint import (
    REPORT,
    SCHEMA_VERSION,
    TRAINING,
    TrainingRecord,
    exam_rows,
    write_documents,
    write_model,
)
from training.dataset import load_split, read_info
from training.device import device_for
from training.options import TrainOptions
from training.report import ReportContent, hardest_rows, render_report
from training.resume import exclusive, last_complete, step_of

if TYPE_CHECKING:
    from training.run import Job, Outcome

_log = logging.getLogger(__name__)
_LIBRARIES = ("miniml", "torch", "transformers", "accelerate", "tokenizers", "datasets")
# Where a run is found, made and put does not change what it makes; the dataset counts by its digest.
_NOT_IN_RECIPE = ("dataset", "model_id", "output", "output_name", "resume", "reuse", "workers")
_LABELS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The published checkpoint. training: its `training.json`; wall_s: 0 when it was reused."""

    version: Version
    folder: Path
    training: Mapping[str, Any]
    reused: bool
    wall_s: float

    def document(self) -> dict[str, object]:
        """The version, where it lies and what the exam said."""
        return {
            **self.version.document(),
            "folder": str(self.folder),
            "report": str(self.folder / REPORT),
            "training": dict(self.training),
            "reused": self.reused,
            "wall_s": round(self.wall_s, 1),
        }

    def __rich__(self) -> Group:
        """Closing numbers, a line a label, and where everything is."""
        record, metrics = self.training, self.training["metrics"]
        said = " (unchanged, reused)" if self.reused else ""
        names = ("accuracy", "micro_f1", "macro_f1", "ece", "loss")
        numbers = "   ".join(f"{name.replace('_', '-')} {metrics[name]:.3f}" for name in names)
        return Group(
            f"[bold]Checkpoint {self.version.reference}[/]{said}, {metrics['rows']} test rows",
            numbers,
            _labels_table(metrics["per_label"]),
            _how(record),
            f"report   {self.folder / REPORT}",
            f"digest   {self.version.digest}",
        )


def train(options: TrainOptions) -> TrainResult:
    """Fine-tune, examine, seal, publish.

    Raises `TrainError` or `RegistryError` with one sentence for everything the user can mend. Cut
    short, it leaves no artifact, and resume points that `options.resume` goes on from.
    """
    started_s = time.monotonic()
    check(options)
    dataset = store.resolve(options.dataset, kind="dataset")
    folder = store.fetch(dataset)
    info = read_info(folder)
    name = check_name(options.output_name or info.name)
    device = device_for(options.device, workers=options.workers)
    base = find_base_model(options.model_id)
    recipe = _recipe(options, dataset=dataset.digest, base_model=base.sha256, device=device)
    if options.reuse and (found := store.find(kind="checkpoint", name=name, recipe=recipe)):
        if options.output is not None:
            copy_sealed(store.fetch(found), options.output)
        return _result(found, reused=True, wall_s=0.0)
    from training.run import Job

    job = Job(
        options=options,
        info=info,
        folder=folder,
        base=base,
        device=device,
        work=work_folder("train", recipe),
    )
    version = _make(job, dataset, name=name, recipe=recipe, started_s=started_s)
    return _result(version, reused=False, wall_s=time.monotonic() - started_s)


def _make(job: Job, dataset: Version, *, name: str, recipe: str, started_s: float) -> Version:
    """Run, write, seal and publish; the resume points go when the version is there."""
    from training.run import run

    lineage = {
        "dataset": dataset.reference,
        "dataset_digest": dataset.digest,
        "base_model": job.base.model_id,
        "base_model_sha256": job.base.sha256,
    }
    with exclusive(job.work):
        try:
            outcome = run(job)
        except KeyboardInterrupt:
            if point := last_complete(job.work):
                _log.info("Interrupted; the same with --resume goes on at step %d.", step_of(point))
            raise
        version = produce(
            lambda folder: _build(folder, job, outcome, lineage, started_s),
            kind="checkpoint",
            name=name,
            recipe=recipe,
            lineage=lineage,
            output=job.options.output,
        )
        shutil.rmtree(job.work, ignore_errors=True)
    return version


def _build(
    folder: Path, job: Job, outcome: Outcome, lineage: Mapping[str, str], started_s: float
) -> Facts:
    """Fill *folder* with all that `training.checkpoint` lists."""
    info = job.info
    record = TrainingRecord(
        task=info.task,
        text_pair=info.text_pair,
        labels=info.labels,
        max_length=outcome.max_length,
        base_model=job.base.model_id,
        base_model_sha256=job.base.sha256,
        config={**_recipe_options(job.options), **outcome.settings},
        metrics=outcome.scores.document(),
        dataset={
            "name": info.name,
            "reference": lineage["dataset"],
            "digest": lineage["dataset_digest"],
            "fingerprint": info.fingerprint,
        },
        versions=_versions(),
        steps=outcome.fit.steps,
        best_step=outcome.fit.best_step,
        resumed_from_step=outcome.resumed_from_step,
        history=outcome.fit.history,
        wall_s=round(time.monotonic() - started_s, 1),
    )
    exam = exam_rows(load_split(job.folder, "test"), info.labels)
    write_model(folder, outcome.model, outcome.tokenizer)
    write_documents(
        folder, record=record, exam=exam, report=_report(record, outcome, exam, lineage)
    )
    return Facts(
        params={**record.config, "max_length": record.max_length, "base_model": record.base_model},
        metrics={**outcome.scores.summary(), "wall_s": record.wall_s},
        curves=record.history,
    )


def _report(
    record: TrainingRecord,
    outcome: Outcome,
    exam: list[dict[str, Any]],
    lineage: Mapping[str, str],
) -> str:
    content = ReportContent(
        title=f"{record.dataset['name']}: {record.base_model}, "
        + ("fine-tuned" if record.steps else "as it is"),
        scores=outcome.scores,
        history=record.history,
        best_step=record.best_step,
        hardest=hardest_rows(exam, outcome.logits, outcome.truths, record.labels),
        facts={
            "Configuration": {
                **record.config,
                "max_length": record.max_length,
                "steps taken": record.steps,
                "weights of step": record.best_step,
                "wall_s": record.wall_s,
            },
            "Lineage": {**lineage, "dataset_fingerprint": record.dataset["fingerprint"]},
            "Versions": record.versions,
        },
    )
    return render_report(content)


def _result(version: Version, *, reused: bool, wall_s: float) -> TrainResult:
    folder = store.fetch(version)
    training = json.loads((folder / TRAINING).read_bytes())
    return TrainResult(
        version=version, folder=folder, training=training, reused=reused, wall_s=wall_s
    )


def _recipe(options: TrainOptions, **inputs: str) -> str:
    return recipe_digest(
        {"schema_version": SCHEMA_VERSION, **inputs, "options": _recipe_options(options)}
    )


def _recipe_options(options: TrainOptions) -> dict[str, Any]:
    return {key: value for key, value in asdict(options).items() if key not in _NOT_IN_RECIPE}


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # miniml itself, run from a checkout that is not installed
            continue
    return found


def _how(record: Mapping[str, Any]) -> str:
    if not record["steps"]:
        return f"taken    {record['base_model']} as it is"
    return (
        f"trained  {record['base_model']}, {record['steps']} steps "
        f"(weights of step {record['best_step']}), {record['wall_s']:.0f} s"
    )


def _labels_table(per_label: list[dict[str, Any]]) -> RichTable:
    """All labels, or the weakest when there are many."""
    table = RichTable("label")
    for name in ("precision", "recall", "F1", "test rows"):
        table.add_column(name, justify="right")
    shown = per_label
    if len(per_label) > _LABELS_SHOWN:
        shown = sorted(per_label, key=lambda row: float(row["f1"]))[:_LABELS_SHOWN]
        table.title = f"the {_LABELS_SHOWN} weakest of {len(per_label)} labels"
    for row in shown:
        scores = (f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(row["label"], *scores, str(row["support"]))
    return table
