"""From a checkpoint and its exam to the candidate that is served, in a workshop folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from export.candidates import FP32, Candidate, runtime_options
from export.checkpoint import TOKENIZER, Checkpoint
from export.exam import Exam, ExamRow
from export.gates import Verdict, doubts
from export.judged import Judged
from export.machine import machine, versions
from export.options import ExportOptions
from export.preparing import Prepared, read_prepared
from export.progress import search_progress
from export.search import Search
from export.speed import timed_lengths
from export.steps import run_step
from export.training_rows import NO_ROWS, TrainingRows
from export.workshop import Settings, Workshop
from serving.engine import TextTokenizer
from serving.lanes import choose_lanes, usable_cores
from serving.session import Encoding

_log = logging.getLogger(__name__)
_ASKED = ("objective", "max_accuracy_drop_points", "max_flip_percent", "max_batch_flip_percent")
_CALIBRATION_TEXTS = 384


def judge(  # noqa: PLR0913, PLR0917 - what a search is about
    checkpoint: Checkpoint,
    exam: Exam,
    candidates: Sequence[Candidate],
    options: ExportOptions,
    work: Path,
    training: TrainingRows = NO_ROWS,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> Judged:
    """Search *candidates* (fp32 among them) in the folder *work*, which may hold finished steps.

    left_out: candidates that this machine cannot run, and why. Raises `CheckpointError` when the
    checkpoint cannot be exported, and `ExportMismatch` when fp32 itself does not answer as the
    checkpoint does, or not with numbers, or not twice the same.
    """
    workshop = Workshop(work)
    fit, unfit = _with_texts(candidates, training)
    encodings = encode(checkpoint, exam.rows)
    workshop.write_texts(encodings, encode(checkpoint, training.sample(_CALIBRATION_TEXTS)))
    workshop.write_settings(_settings(checkpoint, encodings, candidates, options))
    prepared = _prepare(workshop, checkpoint)
    with search_progress(len(fit)) as progress:
        search = Search(workshop, exam, encodings, options, progress)
        name = search.run(fit)
    served = next(candidate for candidate in fit if candidate.name == name)
    verdicts = {c.name: search.verdicts[c.name] for c in fit if c.name in search.verdicts}
    return Judged(
        verdicts=verdicts,
        speeds=search.speeds(),
        not_tried={**left_out, **unfit, **search.failed},
        served=served,
        graph=workshop.graph(name),
        answers=search.answers[name],
        fp32_answers=search.answers[FP32],
        facts=_facts(workshop, search, served, exam, options),
        sensitivity=search.sensitivity(),
        notes=tuple(_notes(verdicts[name], prepared, exam, options, search.roundings())),
    )


def _prepare(workshop: Workshop, checkpoint: Checkpoint) -> Prepared:
    """The exported and the slimmed graph, unless they are there."""
    if not workshop.prepared.exists():
        _log.info("Exporting %s to ONNX", checkpoint.base_model)
        # In a process of its own: torch and two graphs would stay in memory throughout.
        run_step(workshop, FP32, "export", {"checkpoint": str(checkpoint.folder)})
    return read_prepared(workshop)


def _facts(
    workshop: Workshop, search: Search, served: Candidate, exam: Exam, options: ExportOptions
) -> dict[str, Any]:
    """What was asked of the search, and where it ran."""
    prepared = read_prepared(workshop)
    return {
        "exam_rows": search.exam_rows,
        "held_out_rows": exam.held_out,
        **{asked: getattr(options, asked) for asked in _ASKED},
        "target": served.target,
        "machine": machine(),
        "versions": versions(),
        "lanes": asdict(workshop.settings.lanes),
        "torch_max_logit_difference": prepared.torch_max_logit_difference,
        "rounding": search.roundings(),
    }


def encode(checkpoint: Checkpoint, rows: Sequence[ExamRow]) -> list[Encoding]:
    """Texts (and their pairs) as the model sees them."""
    tokenizer = TextTokenizer(checkpoint.folder / TOKENIZER, max_length=checkpoint.max_length)
    pairs = [row.text_pair for row in rows] if checkpoint.text_pair else None
    return tokenizer.encode([row.text for row in rows], pairs)


def _settings(
    checkpoint: Checkpoint,
    encodings: Sequence[Encoding],
    candidates: Sequence[Candidate],
    options: ExportOptions,
) -> Settings:
    runtimes: dict[str, dict[str, Any]] = {
        candidate.name: {
            "runtime": candidate.runtime,
            "options": runtime_options(candidate, checkpoint.hidden_size),
        }
        for candidate in candidates
    }
    return Settings(
        pad_token_id=checkpoint.pad_token_id,
        heads=checkpoint.heads,
        hidden_size=checkpoint.hidden_size,
        flip_budget=options.max_flip_percent / 100,
        lanes=choose_lanes(usable_cores()),
        lengths=timed_lengths([len(encoding) for encoding in encodings]),
        runtimes=runtimes,
    )


def _with_texts(
    candidates: Sequence[Candidate], training: TrainingRows
) -> tuple[list[Candidate], dict[str, str]]:
    """Those that can be made with the training rows there are; name -> why for the others."""
    fit = [candidate for candidate in candidates if training.rows or not candidate.calibrated]
    unfit = {c.name: f"no training texts: {training.missing}" for c in candidates if c not in fit}
    return fit, unfit


def _notes(
    served: Verdict,
    prepared: Prepared,
    exam: Exam,
    options: ExportOptions,
    roundings: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """What a reader should know beside the numbers."""
    if prepared.not_slimmed:
        yield f"the graph was quantized as exported, not slimmed: {prepared.not_slimmed}"
    rounding = roundings.get(served.name)
    if rounding is not None and not rounding["products"]:
        yield f"weights were rounded {rounding['rounded']}"
    rows = served.exam_rows
    if rows < exam.held_out:
        limit = "--budget-minutes" if rows < len(exam.rows) else "--exam-limit"
        yield f"judged on {rows} of {exam.held_out} held-out rows ({limit})"
    if served.name == FP32 and options.candidates != (FP32,):
        yield "no quantized candidate passed its gates, so fp32 is served"
    if served.name != FP32:
        yield from doubts(served, options)
    if not served.batch_invariant:
        yield (
            "answers may depend on company in a batch"
            f" ({100 * served.batch_flip_rate:.2f} % differed here), so every text is run alone"
        )
