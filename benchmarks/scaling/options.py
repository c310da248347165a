"""What `miniml bench scaling` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions:
    """Our autoscaling policy beside Ray's on the same load; simulated, so it needs no server.

    Leaves a record and a page with figures.

    [bold]miniml bench scaling --replicas 50[/]

    [bold]miniml bench scaling --trace monday.csv --queue-goal-ms 20[/]
    """

    replicas: int = field(
        default=10, metadata={"help": "How many the load would keep busy at its peak."}
    )
    trace: Path | None = field(
        default=None,
        metadata={"help": "Recorded load: CSV of texts_per_s and text_ms, a row a second."},
    )
    queue_goal_ms: float = field(
        default=50.0, metadata={"help": "How long a text should wait, on average."}
    )
    start_s: float = field(default=8.0, metadata={"help": "Seconds until a replica is ready."})
    drain_s: float = field(default=30.0, metadata={"help": "Seconds until one that ends is gone."})
    batch_ms: float = field(default=10.0, metadata={"help": "Mean time of a batch."})
    seed: int = field(default=0, metadata={"help": "Seed of traces and texts."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
