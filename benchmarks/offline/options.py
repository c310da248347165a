"""What `miniml bench offline` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineBenchOptions:
    """`miniml predict --output` on many rows, beside the bare engine before and after it.

    [bold]miniml bench offline --package demo@latest[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    workload: Literal["reviews", "queries"] = field(
        default="queries", metadata={"help": "Texts as long as these."}
    )
    rows: int = field(default=100_000, metadata={"help": "Rows of Parquet, all different."})
    engine_rows: int = field(
        default=20_000, metadata={"help": "Of these, as many for the bare engine each time."}
    )
    part_rows: int = field(default=20_000, metadata={"help": "Rows of a part."})
    rounds: int = field(default=1, metadata={"help": "Rounds: the engine, all rows, the engine."})
    seed: int = field(default=0, metadata={"help": "Seed of the texts."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
