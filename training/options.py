"""What `miniml transform` and `miniml train` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_OUTPUT = {"help": "Also write the sealed folder here."}
_REUSE = {"help": "Return an equal artifact made before instead of working."}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """Raw rows -> clean, split, sealed dataset.

    [bold]miniml transform reviews.csv --name reviews[/]

    [bold]miniml transform pairs.tsv --text-column first --text-column second[/]

    [bold]miniml transform train.tsv test.tsv --text-column 0 --label-column 1 --labels names.txt[/]
    """

    sources: tuple[str, ...] = field(
        default=("Yelp/yelp_review_full",),
        metadata={
            "argument": "SOURCE...",
            "help": "Hub id, file, folder or s3:// address: CSV, TSV, JSON, JSONL, Parquet,"
            " gzip or not; files named train and test (dev, validation) are the splits.",
        },
    )
    name: str = field(default="reviews", metadata={"help": "Name of the dataset."})
    text_columns: tuple[str, ...] = field(
        default=(), metadata={"flag": "--text-column", "help": "Text; give two for a text pair."}
    )
    label_columns: tuple[str, ...] = field(
        default=(),
        metadata={"flag": "--label-column", "help": "Label; several 0/1 columns: multi-label."},
    )
    labels: str | None = field(
        default=None,
        metadata={"help": "Label names in order: comma-separated, or a file, one a line."},
    )
    label_delimiter: str | None = field(
        default=None, metadata={"help": "What separates several labels in one field."}
    )
    header: bool | None = field(
        default=None, metadata={"help": "Whether the first line names the columns."}
    )
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of text files."})
    train_test_split_ratio: float = field(
        default=0.2, metadata={"help": "Share held out for the test, when no test split is given."}
    )
    limit: int | None = field(default=None, metadata={"help": "Use at most so many rows."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})
    shuffle: bool = field(
        default=True, metadata={"help": "--no-shuffle keeps the order; the tail is the test."}
    )
    output: Path | None = field(default=None, metadata=_OUTPUT)
    reuse: bool = field(default=False, metadata=_REUSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Dataset -> fine-tuned checkpoint with a report.

    [bold]miniml train --dataset reviews@latest --model-id sentence-transformers/all-MiniLM-L6-v2[/]

    [bold]miniml train --dataset reviews/3 --model-id ./my-encoder --iterations 500 --resume[/]

    [bold]miniml train --dataset reviews --batch-size 64 --workers 4[/]

    [bold]miniml train --dataset held-out --model-id ./my-classifier --iterations 0[/]
    """

    dataset: str = field(default="latest", metadata={"help": "Dataset: NAME, NAME/3, a folder."})
    model_id: str = field(
        default="google-bert/bert-base-cased",
        metadata={"help": "Base encoder: hub id or local folder with safetensors."},
    )
    batch_size: int = field(
        default=32, metadata={"help": "Rows in one step, of all workers together."}
    )
    workers: int = field(
        default=1,
        metadata={"help": "Processes that share each step: here, or on RAY_ADDRESS's cluster."},
    )
    iterations: int | None = field(
        default=None,
        metadata={
            "help": "Steps, instead of epochs; 0 takes a model that was fine-tuned elsewhere as it is."
        },
    )
    epochs: float | None = field(default=None, metadata={"help": "Passes over the data [3]."})
    device: Literal["auto", "cpu", "cuda", "mps"] = field(
        default="auto", metadata={"help": "Where to train."}
    )
    learning_rate: float | None = field(
        default=None, metadata={"help": "Highest learning rate; by the model's width by default."}
    )
    max_length: int = field(default=256, metadata={"help": "Tokens read of a text."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})
    output_name: str | None = field(
        default=None, metadata={"help": "Name of the checkpoint; the dataset's by default."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a lower validation loss."},
    )
    class_weights: bool = field(default=False, metadata={"help": "Weigh rare labels up."})
    resume: bool = field(default=False, metadata={"help": "Go on where a killed run was."})
    output: Path | None = field(default=None, metadata=_OUTPUT)
    reuse: bool = field(default=False, metadata=_REUSE)
