"""Make the candidates one by one and let the exam judge each; the first that passes is served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from export.answers import Answers, answer_exam
from export.candidates import FP32, Candidate
from export.checkpoint import TOKENIZER, Checkpoint
from export.errors import ExportMismatch
from export.exam import Exam
from export.fp32 import export_fp32
from export.gates import Verdict, judge_answers
from export.options import ExportOptions
from export.speed import texts_per_second
from serving.engine import Encoding, TextTokenizer

_log = logging.getLogger(__name__)
# Of the served variant, also on the first level of gates.json: what people ask of a package.
_HEADLINES = (
    "label_flip_rate",
    "flip_interval",
    "batch_flip_rate",
    "batch_bit_equal",
    "deterministic",
    "max_probability_change",
    "mean_probability_change",
    "texts_per_s",
)
_BUDGETS = ("max_accuracy_drop_points", "max_flip_percent", "max_batch_flip_percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All verdicts in order of preference, the one to serve, and where its graph lies.

    torch_max_logit_difference: between the checkpoint and its fp32 graph. texts_per_s: of every
    candidate by name, alone, one thread.
    """

    verdicts: tuple[Verdict, ...]
    fp32: Verdict
    served: Verdict
    graph: Path
    torch_max_logit_difference: float
    texts_per_s: Mapping[str, float]
    exam_rows: int
    budgets: dict[str, float]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """`gates.json`."""
        served = self._entry(self.served)
        return {
            "exam_rows": self.exam_rows,
            **self.budgets,
            "torch_max_logit_difference": self.torch_max_logit_difference,
            "fp32": self._entry(self.fp32),
            "served": served,
            **{name: served[name] for name in _HEADLINES},
            "candidates": [self._entry(verdict) for verdict in self.verdicts],
            "notes": list(self.notes),
        }

    def _entry(self, verdict: Verdict) -> dict[str, Any]:
        return {**verdict.document(), "texts_per_s": self.texts_per_s[verdict.name]}


def judge(
    checkpoint: Checkpoint,
    exam: Exam,
    candidates: Sequence[Candidate],
    options: ExportOptions,
    work: Path,
) -> Judged:
    """Judge *candidates* (fp32 among them) against the fp32 graph; graphs are left in *work*.

    Raises `CheckpointError` when the checkpoint cannot be exported, and `ExportMismatch` when fp32
    itself does not answer as the checkpoint does, or not with numbers, or not twice the same.
    """
    encodings = _encode(checkpoint, exam)
    _log.info("Exporting %s to ONNX", checkpoint.base_model)
    exported, difference = export_fp32(checkpoint, encodings, work)
    graphs, answers = _ask(candidates, exported, encodings, checkpoint.pad_token_id)
    verdicts = {
        candidate.name: judge_answers(
            candidate.name, answers[candidate.name], fp32=answers[FP32], exam=exam, options=options
        )
        for candidate in candidates
    }
    if verdicts[FP32].reasons:
        raise ExportMismatch(
            f"The fp32 graph itself is unfit: {'; '.join(verdicts[FP32].reasons)}; train it again."
        )
    _log.info("Timing %s", ", ".join(graphs))
    speeds = texts_per_second(graphs, encodings, pad_token_id=checkpoint.pad_token_id)
    served = next(verdict for verdict in verdicts.values() if verdict.passed)
    return Judged(
        verdicts=tuple(verdicts.values()),
        fp32=verdicts[FP32],
        served=served,
        graph=graphs[served.name],
        torch_max_logit_difference=difference,
        texts_per_s=speeds,
        exam_rows=len(exam.rows),
        budgets={name: asdict(options)[name] for name in _BUDGETS},
        notes=tuple(_notes(served, len(candidates), exam, options)),
    )


def _ask(
    candidates: Sequence[Candidate],
    exported: Path,
    encodings: Sequence[Encoding],
    pad_token_id: int,
) -> tuple[dict[str, Path], dict[str, Answers]]:
    """Make each candidate's graph beside the exported one, and let it answer; both by name."""
    graphs: dict[str, Path] = {}
    answers: dict[str, Answers] = {}
    with _progress(total=2 * len(encodings) * len(candidates)) as (describe, advance):
        for candidate in candidates:
            describe(candidate.name)
            graph = graphs[candidate.name] = exported.with_name(f"{candidate.name}.onnx")
            candidate.make(exported, graph)
            answers[candidate.name] = answer_exam(
                graph, encodings, pad_token_id=pad_token_id, advance=advance
            )
    return graphs, answers


def _encode(checkpoint: Checkpoint, exam: Exam) -> list[Encoding]:
    tokenizer = TextTokenizer(checkpoint.folder / TOKENIZER, max_length=checkpoint.max_length)
    pairs = [row.text_pair for row in exam.rows] if checkpoint.text_pair else None
    return tokenizer.encode([row.text for row in exam.rows], pairs)


def _notes(served: Verdict, candidates: int, exam: Exam, options: ExportOptions) -> Iterator[str]:
    """What a reader should know beside the numbers."""
    rows, high_percent = len(exam.rows), 100 * served.flip_interval[1]
    if rows < exam.held_out:
        yield f"judged on {rows} of {exam.held_out} held-out rows (--exam-limit)"
    if served.name == FP32 and candidates > 1:
        yield "no quantized candidate passed its gates, so fp32 is served"
    if served.name != FP32 and high_percent > options.max_flip_percent:
        yield (
            f"{rows} exam rows are too few to be sure of the flip budget of"
            f" {options.max_flip_percent:g} %: the true rate may be {high_percent:.1f} %"
        )
    if not served.batch_invariant:
        yield (
            "answers may depend on company in a batch"
            f" ({100 * served.batch_flip_rate:.2f} % differed here), so every text is run alone"
        )


@contextmanager
def _progress(*, total: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """A bar over *total* rows on stderr; yields how to name what is judged, and how to advance."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Judging", total=total)
        yield (
            lambda name: progress.update(task, description=f"Judging {name}"),
            lambda rows: progress.advance(task, rows),
        )
