"""Temperature and thresholds of a package: fitted on training rows, weighed on the exam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.answers import Answers
from export.errors import UnusableOption
from export.exam import Bools, Exam, ExamRow
from export.gates import calibration_error, macro_f1
from export.options import ExportOptions
from export.training_rows import TrainingRows
from export.tuning import fit_temperature, fit_thresholds
from serving.engine import Engine, probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was fitted; temperature 1 and no thresholds unless asked. effect: on the exam."""

    temperature: float
    thresholds: tuple[float, ...] | None
    effect: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Its part of `gates.json`; nothing when nothing was asked."""
        return {"tuned": self.effect} if self.effect else {}


def check_tuning(training: TrainingRows, exam: Exam, options: ExportOptions) -> None:
    """Raise `UnusableOption` for tuning that cannot be done, before any work."""
    if options.tune_thresholds and exam.task != "multi_label":
        raise UnusableOption("--tune-thresholds is for multi-label models; this one has one label.")
    if (options.calibrate or options.tune_thresholds) and not training.rows:
        raise UnusableOption(
            f"--calibrate and --tune-thresholds need the training rows, but {training.missing}."
        )


def tune(
    engine: Engine, training: TrainingRows, exam: Exam, held_out: Answers, options: ExportOptions
) -> Tuned:
    """Fit what *options* ask for; *held_out* are the engine's answers to *exam*."""
    if not (options.calibrate or options.tune_thresholds):
        return Tuned(temperature=1.0, thresholds=None, effect={})
    pairs = [row.text_pair for row in training.rows]
    logits = engine.logits([row.text for row in training.rows], pairs)
    truth = _truth(training.rows, exam.labels)
    temperature = fit_temperature(logits, truth, exam.task) if options.calibrate else 1.0
    thresholds = (
        fit_thresholds(logits, truth, temperature=temperature) if options.tune_thresholds else None
    )
    answered = held_out.alone
    right = exam.truth()[: len(answered)]
    effect: dict[str, Any] = {"training_rows": len(training.rows)}
    if options.calibrate:
        effect["temperature"] = temperature
        effect["calibration_error_before"] = calibration_error(answered, right, exam.task)
        effect["calibration_error"] = calibration_error(answered, right, exam.task, temperature)
    if thresholds is not None:
        chances = probabilities(answered, exam.task, temperature)
        effect["macro_f1_before"] = macro_f1(np.asarray(chances >= 0.5), right)  # noqa: PLR2004
        effect["macro_f1"] = macro_f1(np.asarray(chances >= np.array(thresholds)), right)
    return Tuned(temperature=temperature, thresholds=thresholds, effect=effect)


def _truth(rows: Sequence[ExamRow], labels: int) -> Bools:
    matrix = np.zeros((len(rows), labels), dtype=bool)
    for index, row in enumerate(rows):
        matrix[index, list(row.truth)] = True
    return matrix
