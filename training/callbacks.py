"""What happens between the steps of a fit: when to look, save and stop, and the progress bar."""

# ruff: noqa: ARG002  # the signatures are Trainer's

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID
from transformers import TrainerCallback

_SAVE_EVERY_S = 300.0


def patience_is_over(log: Sequence[Mapping[str, float]], patience: int | None) -> bool:
    """Whether the last *patience* evaluations in Trainer's log brought no lower loss.

    Counted from the log alone, so that a resumed run counts the same.
    """
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    if patience is None or not losses:
        return False
    return len(losses) - 1 - int(np.argmin(losses)) >= patience


class Pace(TrainerCallback):
    """When to evaluate, save and stop, beyond Trainer's fixed interval."""

    def __init__(self, *, patience: int | None, evaluates: bool) -> None:
        self._patience = patience
        self._evaluates = evaluates
        self._saved_s = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is judged too, and a long run is never far from a resume point."""
        control.should_evaluate |= self._evaluates and state.global_step >= state.max_steps
        control.should_save |= time.monotonic() - self._saved_s > _SAVE_EVERY_S

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here the time to the next resume point counts."""
        self._saved_s = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Early stopping."""
        control.should_training_stop |= patience_is_over(state.log_history, self._patience)


class Bar(TrainerCallback):
    """The progress bar; it starts where a resumed run starts."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """0, or the step of the resume point."""
        self._progress.update(self._task, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step further."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Show the mean loss since the last time."""
        if "loss" in event["logs"]:
            loss = event["logs"]["loss"]
            self._progress.update(self._task, description=f"Training, loss {loss:.3f}")
