"""What `miniml export` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Objective = Literal["throughput", "latency", "size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Checkpoint -> gated, quantized model package.

    [bold]miniml export reviews@latest[/]

    [bold]miniml export reviews/3 --candidates int8-row-wise,int8-per-channel --max-flips 3[/]
    """

    checkpoint: str = field(
        default="latest", metadata={"argument": "CHECKPOINT", "help": "NAME, NAME/3, a folder, ..."}
    )
    output_name: str | None = field(
        default=None, metadata={"help": "Name of the package; the checkpoint's by default."}
    )
    candidates: tuple[str, ...] = field(
        default=(),
        metadata={
            "flag": "--candidates",
            "help": "Consider only these, by commas; fp32 is always the last resort.",
        },
    )
    objective: Objective = field(
        default="throughput", metadata={"help": "What makes a candidate that passes the best."}
    )
    target: Literal["auto", "cpu", "cuda"] = field(
        default="auto", metadata={"help": "Where it will serve; auto: on a GPU if there is one."}
    )
    budget_minutes: float = field(
        default=10.0,
        metadata={"help": "Time to search; what is not tried by then is said. fp32 always is."},
    )
    max_accuracy_drop_points: float = field(
        default=1.0,
        metadata={
            "flag": "--max-accuracy-drop",
            "help": "Accuracy that may be lost against fp32, in points.",
        },
    )
    max_flip_percent: float = field(
        default=2.0,
        metadata={"flag": "--max-flips", "help": "Answers that may differ from fp32, in percent."},
    )
    max_batch_flip_percent: float = field(
        default=0.5,
        metadata={
            "flag": "--max-batch-flips",
            "help": "Answers that may differ in a batch, in percent; beyond it, texts run alone.",
        },
    )
    min_exam_rows: int = field(default=50, metadata={"help": "Refuse to judge on fewer rows."})
    exam_limit: int = field(default=2000, metadata={"help": "Judge on at most so many rows."})
    calibrate: bool = field(
        default=False,
        metadata={
            "help": "Fit one temperature on training rows, so that scores mean what they say."
        },
    )
    tune_thresholds: bool = field(
        default=False,
        metadata={"help": "Multi-label: a threshold a label, by its best F1 on training rows."},
    )
    canonicalizer: str | None = field(
        default=None,
        metadata={
            "help": "Read texts in this form: serving.canonical:casefolded, or MODULE:FUNCTION of"
            " one's own; refused above --max-flips."
        },
    )
    sign_key: Path | None = field(
        default=None, metadata={"help": "Sign the package with this private key (PEM, EC)."}
    )
    alias: str | None = field(
        default=None, metadata={"help": "Point this alias at the package, for instance champion."}
    )
    output: Path | None = field(default=None, metadata={"help": "Also write the folder here."})
    reuse: bool = field(
        default=False,
        metadata={"help": "Return an equal artifact made before instead of working."},
    )
