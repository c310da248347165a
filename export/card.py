"""The model card: what a package is, what it was proved to do, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from export.checkpoint import Checkpoint
from export.gates import Verdict
from export.judged import Judged
from export.mix import described
from serving.package import ExamMix

_NUMBERS = (
    "accuracy",
    "macro-F1",
    "answers that differ in a batch",
    "model size",
    "texts/s, all cores",
    "one text, all lanes busy",
)


_LIMITS = (
    "To classify texts like the rows it was trained on: same language, same kind, same labels."
    " Texts of another kind may fare worse than the numbers above, which were measured on held-out"
    " rows of that dataset, on the machine in `cost.json`. Scores are the model's own probabilities;"
    " `report.html` of the checkpoint says how well they are calibrated. No decision about a person"
    " should rest on them alone."
)


def model_card(
    name: str, checkpoint: Checkpoint, judged: Judged, lineage: Mapping[str, str], mix: ExamMix
) -> str:
    """Markdown."""
    kind = f"{checkpoint.task.replace('_', '-')}{' text-pair' if checkpoint.text_pair else ''}"
    company = (
        "A text gets the same answer alone and in a batch."
        if judged.verdict.batch_invariant
        else "Its answers depend on the batch, so every text is run alone."
    )
    lines = [
        f"# {name}",
        "",
        (
            f"{checkpoint.base_model}, fine-tuned for {kind} classification and packaged as"
            f" {judged.served.name}."
        ),
        "",
        f"Labels: {', '.join(checkpoint.labels)}.",
        "",
        f"At most {checkpoint.max_length} tokens of a text are read. {company}",
        "",
        "## Gates",
        "",
        *_gates(judged),
        "",
        *(f"Note: {note}." for note in judged.notes),
        "",
        *_answers(mix, checkpoint.labels),
        "",
        "## Made from",
        "",
        *(f"- {key}: {value}" for key, value in lineage.items()),
        "",
        "## Intended use and limits",
        "",
        _LIMITS,
        "",
    ]
    return "\n".join(lines)


def _answers(mix: ExamMix, labels: tuple[str, ...]) -> Iterator[str]:
    """What it answered on the exam."""
    yield "## Answers on the exam"
    yield ""
    yield "Where it is served, `miniml_drift` says how far its answers are from these."
    yield ""
    yield from (f"- {name}: {value}" for name, value in described(mix, labels).items())


def _gates(judged: Judged) -> Iterator[str]:
    """What the exam said of fp32 and of what is served, as a table."""
    fp32, served = judged.fp32, judged.verdict
    low, high = (100 * share for share in served.flip_interval)
    yield f"| {served.exam_rows} exam rows | fp32 | served |"
    yield "|---|---|---|"
    columns = zip(_NUMBERS, _numbers(judged, fp32), _numbers(judged, served), strict=True)
    yield from (f"| {title} | {left} | {right} |" for title, left, right in columns)
    flips = f"{100 * served.label_flip_rate:.2f} % (95 %: {low:.2f} to {high:.2f} %)"
    yield f"| answers that differ from fp32 | | {flips} |"


def _numbers(judged: Judged, verdict: Verdict) -> tuple[str, ...]:
    """One column of the table, in the order of its titles."""
    return (
        f"{verdict.accuracy:.4f}",
        f"{verdict.macro_f1:.4f}",
        f"{100 * verdict.batch_flip_rate:.2f} %",
        f"{verdict.model_bytes / 1e6:.1f} MB",
        f"{judged.speeds[verdict.name].texts_per_s:.1f}",
        f"{judged.speeds[verdict.name].latency_ms:.1f} ms",
    )
