"""What `miniml bench soak` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """A server under a steady load for long: memory, errors and latency over time.

    Starts a server of its own and stops it again. Leaves a record and a page with figures.

    [bold]miniml bench soak --package demo@latest --minutes 30[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    port: int = field(default=8000, metadata={"help": "Port to serve on meanwhile."})
    minutes: float = field(default=30.0, metadata={"help": "Minutes that are judged."})
    warmup_minutes: float = field(
        default=5.0, metadata={"help": "Minutes of the same load before, not judged."}
    )
    share: float = field(
        default=0.7, metadata={"help": "Load, as a share of what a closed loop reaches first."}
    )
    capacity_s: float = field(default=15.0, metadata={"help": "Seconds of that closed loop."})
    sample_s: float = field(default=5.0, metadata={"help": "Seconds between looks at the memory."})
    cache_mb: float = field(
        default=16.0,
        metadata={"help": "The server's memory for known answers, filled before; 0: none."},
    )
    texts_count: int = field(
        default=65_536,
        metadata={"help": "Texts that the load goes round; more than the server's cache holds."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of texts and arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
