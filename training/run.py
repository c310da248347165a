"""One training run from tokenising to the exam; it writes no artifact and knows no registry."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import DataCollatorWithPadding, set_seed

from training.base_model import BaseModel
from training.batches import split_validation
from training.callbacks import Bar
from training.classifier import load_classifier, load_tokenizer, position_limit
from training.dataset import DatasetInfo, load_split
from training.device import Device, bf16_pays, usable_cores
from training.encode import EncodedRows, encode, strata
from training.errors import DatasetError, FitFailed
from training.evaluate import predict_logits
from training.losses import balanced_weights
from training.metrics import Scores, multi_label_scores, single_label_scores
from training.options import TrainOptions
from training.resume import forget, last_complete, step_of
from training.trained import load_trained
from training.trainer import Fit, FitData, FitPlan, fit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
DEFAULT_EPOCHS = 3.0
_NARROW = 512  # hidden size
_NARROW_LEARNING_RATE, _LEARNING_RATE = 1e-4, 5e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train. folder: the dataset's; work: where an unfinished run lies, for it alone."""

    options: TrainOptions
    info: DatasetInfo
    folder: Path
    base: BaseModel
    device: Device
    work: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A trained model and its exam.

    logits (N, L) and truths (N,) or (N, L) of the test split, in float32; settings: what was chosen
    for this run beyond its options.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    fit: Fit
    scores: Scores
    logits: npt.NDArray[np.float32]
    truths: npt.NDArray[Any]
    resumed_from_step: int
    settings: dict[str, Any]


def run(job: Job) -> Outcome:
    """Tokenise, fit, examine.

    Raises `BaseModelError`, `DatasetError`, `FitFailed`; interrupted, it leaves its resume points.
    """
    torch.set_num_threads(usable_cores())
    set_seed(job.options.seed)
    tokenizer, model = _load(job)
    max_length = _max_length(job.options.max_length, tokenizer, model)
    rows, test = _encode(job, tokenizer, max_length)
    data = _fit_data(job, tokenizer, rows)
    plan = _plan(job, model, data.train)
    _say(job, plan, data)
    with _progress() as progress:
        done = _fit(job, model, data, plan, progress)
        advance = partial(progress.advance, progress.add_task("Examining", total=len(test)))
        logits = predict_logits(model, test, data.collate, advance=advance)
    if not np.isfinite(logits).all():
        raise FitFailed("The training diverged: the answers are no numbers; lower --learning-rate.")
    return Outcome(
        model=model,
        tokenizer=tokenizer,
        max_length=max_length,
        fit=done,
        scores=data.score(logits, test.targets),
        logits=logits,
        truths=test.targets,
        resumed_from_step=step_of(plan.resume_from) if plan.resume_from else 0,
        settings=_settings(job, plan, data),
    )


def _fit(job: Job, model: PreTrainedModel, data: FitData, plan: FitPlan, progress: Progress) -> Fit:
    if not plan.steps:
        return Fit(steps=0, best_step=0, history=())
    bar = Bar(progress, steps=plan.steps)
    if job.options.workers == 1:
        return fit(model, data, plan, bar)
    from training.workers import fit_over_workers

    return fit_over_workers(model, data, plan, bar, workers=job.options.workers)


def _settings(job: Job, plan: FitPlan, data: FitData) -> dict[str, Any]:
    """What the options came to on this machine."""
    return {
        "learning_rate": plan.learning_rate,
        "steps": plan.steps,
        "device": job.device,
        "workers": job.options.workers,
        "threads": torch.get_num_threads(),
        "bf16": plan.bf16,
        "train_rows": len(data.train),
        "validation_rows": len(data.validation),
    }


def _load(job: Job) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    tokenizer = load_tokenizer(job.base)
    if job.options.iterations == 0:
        return tokenizer, load_trained(job.base, task=job.info.task, labels=job.info.labels)
    # On a CPU in bfloat16 the fused attention's backward pass is far slower than plain products.
    eager = job.device == "cpu" and bf16_pays(job.device)
    model = load_classifier(
        job.base,
        task=job.info.task,
        labels=job.info.labels,
        attention="eager" if eager else None,
    )
    return tokenizer, model


def _encode(
    job: Job, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> tuple[EncodedRows, EncodedRows]:
    """The train split and the test split. Raises `DatasetError` when one of them is empty."""
    whole = partial(encode, tokenizer=tokenizer, max_length=max_length, labels=len(job.info.labels))
    train, test = whole(load_split(job.folder, "train")), whole(load_split(job.folder, "test"))
    if not len(train) or not len(test):
        raise DatasetError("The dataset has no rows to train on or none to test on; split it anew.")
    return train, test


def _fit_data(job: Job, tokenizer: PreTrainedTokenizerFast, rows: EncodedRows) -> FitData:
    """The train split with its validation part set aside, how to batch it, how to judge it."""
    train, validation = split_validation(strata(rows.targets), seed=job.options.seed)
    scores = single_label_scores if job.info.task == "single_label" else multi_label_scores
    return FitData(
        train=rows.select(train),
        validation=rows.select(validation),
        collate=DataCollatorWithPadding(tokenizer),
        score=partial(scores, labels=job.info.labels),
    )


def _plan(job: Job, model: PreTrainedModel, train: EncodedRows) -> FitPlan:
    options = job.options
    steps_per_epoch = math.ceil(len(train) / options.batch_size)
    steps = math.ceil((options.epochs or DEFAULT_EPOCHS) * steps_per_epoch)
    if options.iterations is not None:
        steps = options.iterations
    if not options.resume:
        forget(job.work)
    return FitPlan(
        work=job.work,
        steps=steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate or _learning_rate(model),
        seed=options.seed,
        device=job.device,
        bf16=bf16_pays(job.device),
        patience=options.early_stopping_patience,
        class_weights=balanced_weights(train.targets, labels=len(job.info.labels))
        if options.class_weights
        else None,
        resume_from=last_complete(job.work),
    )


def _learning_rate(model: PreTrainedModel) -> float:
    """Narrow encoders need, and stand, larger steps than the usual base size."""
    width = getattr(model.config, "hidden_size", _NARROW + 1)
    return _NARROW_LEARNING_RATE if width <= _NARROW else _LEARNING_RATE


def _max_length(wanted: int, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> int:
    """Tokens read of a text: *wanted*, but no more than the encoder has positions for."""
    limit = min(tokenizer.model_max_length, position_limit(model) or wanted)
    if wanted > limit:
        _log.info("The encoder reads at most %d tokens; --max-length is lowered to that.", limit)
    return min(wanted, limit)


def _say(job: Job, plan: FitPlan, data: FitData) -> None:
    if not plan.steps:
        _log.info("Taking %s as it is.", job.base.model_id)
        return
    workers = job.options.workers
    _log.info(
        "Training on %d rows, choosing the best weights by %d others of the train split; "
        "%s on %s, %s, %s, learning rate %g.",
        len(data.train),
        len(data.validation),
        job.base.model_id,
        job.device,
        f"{workers} workers" if workers > 1 else f"{torch.get_num_threads()} threads",
        "bfloat16" if plan.bf16 else "float32",
        plan.learning_rate,
    )
    if plan.resume_from:
        _log.info("Going on from step %d of %d.", step_of(plan.resume_from), plan.steps)
    elif job.options.resume:
        _log.info("There is nothing to resume; starting from the beginning.")


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress
