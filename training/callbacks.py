"""What happens between the steps of a fit: when to look, save and stop, and the progress bar."""

# ruff: noqa: ARG002  # the signatures are Trainer's

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID
from transformers import TrainerCallback

_SAVE_EVERY_S = 300.0
_TELL_EVERY_S = 0.5


def patience_is_over(log: Sequence[Mapping[str, float]], patience: int | None) -> bool:
    """Whether the last *patience* evaluations in Trainer's log brought no lower loss.

    Counted from the log alone, so that a resumed run counts the same.
    """
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    if patience is None or not losses:
        return False
    return len(losses) - 1 - int(np.argmin(losses)) >= patience


class Pace(TrainerCallback):
    """When to evaluate, save and stop, beyond Trainer's fixed interval.

    agreed: makes of this worker's wish what all workers do.
    """

    def __init__(
        self, *, patience: int | None, evaluates: bool, agreed: Callable[[bool], bool]
    ) -> None:
        self._patience = patience
        self._evaluates = evaluates
        self._agreed = agreed
        self._saved_s = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is judged too, and a long run is never far from a resume point."""
        control.should_evaluate |= self._evaluates and state.global_step >= state.max_steps
        control.should_save |= self._agreed(time.monotonic() - self._saved_s > _SAVE_EVERY_S)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here the time to the next resume point counts."""
        self._saved_s = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Early stopping."""
        control.should_training_stop |= patience_is_over(state.log_history, self._patience)


class Bar(TrainerCallback):
    """The progress bar; it appears with the first step, and starts where a resumed run starts."""

    def __init__(self, progress: Progress, *, steps: int) -> None:
        self._progress = progress
        self._steps = steps
        self._task: TaskID | None = None

    def show(self, step: int, loss: float | None = None) -> None:
        """*step* steps are done; loss: the mean since it was last told."""
        if self._task is None:
            self._task = self._progress.add_task("Training", total=self._steps)
        self._progress.update(self._task, completed=step)
        if loss is not None:
            self._progress.update(self._task, description=f"Training, loss {loss:.3f}")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """0, or the step of the resume point."""
        self.show(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step further."""
        self.show(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Show the mean loss since the last time."""
        self.show(state.global_step, event["logs"].get("loss"))


class ProgressFile(TrainerCallback):
    """How far a worker is, in a file that `read` reads in another process, twice a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loss: float | None = None
        self._told_s = 0.0

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Keep the mean loss since the last time."""
        self._loss = event["logs"].get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write it whole or not at all."""
        if time.monotonic() - self._told_s < _TELL_EVERY_S and state.global_step < state.max_steps:
            return
        self._told_s = time.monotonic()
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps([state.global_step, self._loss]), encoding="utf-8")
        part.replace(self._path)

    @staticmethod
    def read(path: Path) -> tuple[int, float | None] | None:
        """Steps done and the last mean loss; None while nothing is known."""
        try:
            step, loss = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return step, loss
