"""Fine-tuning with the Hugging Face Trainer: resumable, repeatable, best weights kept.

`fit` changes the model it is given and knows nothing of datasets, folders or reports. Trainer's own
checkpoints live in the work folder only: their optimizer and generator states are pickles, which
torch reads with `weights_only`, and none of them ever enters an artifact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_model
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from training.base_model import WEIGHTS
from training.batches import length_grouped
from training.callbacks import Pace, patience_is_over
from training.device import Device
from training.encode import EncodedRows
from training.errors import FitFailed
from training.evaluate import predict_logits
from training.losses import batch_loss
from training.metrics import Scores
from training.resume import STATE, disk_errors
from training.shared import ALONE, ROW_WEIGHTS, Share, share_loader

_WARMUP_SHARE = 0.1
_WEIGHT_DECAY = 0.01
_EVALUATIONS = 5
_LOGGED_POINTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """How to fit. steps: optimizer steps in all; work: a folder of this run alone.

    batch_size: rows of a step, of all workers together.
    patience: evaluations without a better one before stopping; None never stops early.
    class_weights: (L,) weight of each label, or of its presence in multi-label.
    resume_from: a complete checkpoint of an earlier try of the same run.
    """

    work: Path
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: Device
    bf16: bool
    patience: int | None
    class_weights: npt.NDArray[np.float32] | None
    resume_from: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What happened. best_step: whose weights the model has now; history: (metric, step, value)."""

    steps: int
    best_step: int
    history: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitData:
    """What to fit to. validation may have no rows; collate: rows of `EncodedRows` -> a batch.

    score: logits (N, L) and targets -> scores.
    """

    train: EncodedRows
    validation: EncodedRows
    collate: Callable[[list[dict[str, Any]]], Any]
    score: Callable[[npt.NDArray[np.float32], npt.NDArray[Any]], Scores]


def fit(
    model: PreTrainedModel,
    data: FitData,
    plan: FitPlan,
    watcher: TrainerCallback,
    share: Share = ALONE,
) -> Fit:
    """Train *model* in place; it ends with the weights of the lowest validation loss.

    Without validation rows the last weights are kept. watcher: told of every step. share: which of
    several workers this is; the batches and what comes of them are those of one. Raises `FitFailed`
    when memory does not suffice; a full disk is an OSError. Interrupted, it leaves what
    `plan.resume_from` takes.
    """
    if plan.resume_from and (over := state_if_over(plan, plan.resume_from)):
        best = plan.work / f"checkpoint-{over.best_global_step or over.global_step}"
        load_model(model, best / WEIGHTS)
        return _as_fit(over)
    weights = None if plan.class_weights is None else torch.from_numpy(plan.class_weights.copy())
    pace = Pace(patience=plan.patience, evaluates=len(data.validation) > 0, agreed=share.agreed)
    trainer = _GroupedTrainer(
        model=model,
        args=_arguments(plan, data, share),
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=data.collate,
        compute_loss_func=lambda outputs, labels, **_: batch_loss(outputs.logits, labels, weights),
        callbacks=[pace, watcher],
    )
    trainer.score, trainer.weights = data.score, weights
    trainer.share, trainer.batch_size = share, plan.batch_size
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for the result
    with _memory_errors(), disk_errors(plan.work):
        trainer.train(resume_from_checkpoint=str(plan.resume_from) if plan.resume_from else None)
    # Undo the autocast wrapper, so that the model answers as its saved weights will.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return _as_fit(trainer.state)


def evaluation_interval(
    *, steps: int, steps_per_epoch: int, batch_size: int, validation_rows: int
) -> int:
    """Steps between two looks at the validation part, each of which is also a resume point.

    Five looks a run or one an epoch, whichever is more; fewer when looking (a third of the cost of
    training, row by row) would take more than about a sixth of the time.
    """
    wanted = min(steps_per_epoch, math.ceil(steps / _EVALUATIONS))
    affordable = math.ceil(2 * validation_rows / batch_size)
    return max(1, min(steps, max(wanted, affordable)))


class _GroupedTrainer(Trainer):
    """Trainer with our order of rows and our evaluation; both depend on seed and epoch alone."""

    score: Callable[[npt.NDArray[np.float32], npt.NDArray[Any]], Scores]
    weights: torch.Tensor | None
    share: Share
    batch_size: int

    def _get_train_sampler(self, train_dataset: Any = None) -> _GroupedSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return _GroupedSampler(rows, batch_size=self.args.train_batch_size, seed=self.args.seed)

    def get_train_dataloader(self) -> Any:
        if self.share == ALONE:
            return super().get_train_dataloader()
        rows: Any = self.train_dataset
        return share_loader(
            rows,
            self.data_collator,
            batch_size=self.batch_size,
            seed=self.args.seed,
            share=self.share,
        )

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if ROW_WEIGHTS not in inputs:
            return super().compute_loss(model, inputs, *args, **kwargs)
        row_weights, labels = inputs.pop(ROW_WEIGHTS), inputs.pop("labels")
        return batch_loss(model(**inputs).logits, labels, self.weights, row_weights)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,  # noqa: ARG002  # Trainer's own signature
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        model: Any = self.model
        logits = predict_logits(model, rows, self.data_collator, share=self.share)
        scores = self.score(logits, rows.targets)
        # The loss that is trained, weights and all: the best step must be best at that.
        loss = batch_loss(torch.from_numpy(logits), torch.tensor(rows.targets), self.weights)
        names = [f"{metric_key_prefix}_{name}" for name in ("loss", "accuracy", "macro_f1")]
        values = self.share.as_first([float(loss), scores.accuracy, scores.macro_f1])
        metrics = dict(zip(names, values, strict=True))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class _GroupedSampler(torch.utils.data.Sampler[int]):
    """The order of each epoch, a function of seed and epoch: a resumed run sees what it would."""

    def __init__(self, rows: EncodedRows, *, batch_size: int, seed: int) -> None:
        self._lengths = rows.lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = length_grouped(
            self._lengths, batch_size=self._batch_size, seed=self._seed, epoch=self._epoch
        )
        return iter(order.tolist())


def _arguments(plan: FitPlan, data: FitData, share: Share) -> TrainingArguments:
    validates = len(data.validation) > 0
    interval = evaluation_interval(
        steps=plan.steps,
        steps_per_epoch=math.ceil(len(data.train) / plan.batch_size),
        batch_size=plan.batch_size,
        validation_rows=len(data.validation),
    )
    arguments = TrainingArguments(
        output_dir=str(plan.work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch_size // share.count,
        average_tokens_across_devices=False,  # rows are weighted already
        learning_rate=plan.learning_rate,
        warmup_ratio=_WARMUP_SHARE,
        weight_decay=_WEIGHT_DECAY,
        seed=plan.seed,
        bf16=plan.bf16,
        use_cpu=plan.device == "cpu",
        eval_strategy="steps" if validates else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=validates,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, plan.steps // _LOGGED_POINTS),
        remove_unused_columns=False,
        dataloader_pin_memory=plan.device == "cuda",
        disable_tqdm=True,
        report_to=[],
    )
    # With several GPUs Trainer would wrap the model in DataParallel and multiply the batch size.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001
    return arguments


def state_if_over(plan: FitPlan, point: Path) -> TrainerState | None:
    """The state at *point* when nothing is left to train; Trainer would take one step more."""
    state: TrainerState = TrainerState.load_from_json(str(point / STATE))
    stopped = patience_is_over(state.log_history, plan.patience)
    return state if stopped or state.global_step >= plan.steps else None


def _as_fit(state: TrainerState) -> Fit:
    names = {
        "loss": "train_loss",
        "eval_loss": "validation_loss",
        "eval_accuracy": "validation_accuracy",
        "eval_macro_f1": "validation_macro_f1",
    }
    return Fit(
        steps=state.global_step,
        best_step=state.best_global_step or state.global_step,
        history=tuple(
            (names[key], int(entry["step"]), float(value))
            for entry in state.log_history
            for key, value in entry.items()
            if key in names
        ),
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FitFailed(
            "The device has too little memory for this batch; lower --batch-size or --max-length."
        ) from error
