"""What `miniml bench all` can be told; light, as `benchmarks.options`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """Backends, core, loads and the search for the highest rate, in turn, and a page of all records.

    Each stage has its share of the budget; one that fails or takes longer is said so, and the next
    begins. Exit code 1 when there was any.

    [bold]miniml bench all --package reviews@latest[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    only: str = field(
        default="", metadata={"help": "Stages, with commas: backends, core, load, slo."}
    )
    budget_minutes: float = field(default=20.0, metadata={"help": "Time for all of it, at most."})
    rounds: int = field(default=3, metadata={"help": "Rounds of backends and core."})
    load_s: float = field(default=6.0, metadata={"help": "Seconds of each load."})
    overload_s: float = field(default=10.0, metadata={"help": "Seconds of overload, once."})
    warmup_s: float = field(default=2.0, metadata={"help": "Seconds before, not measured."})
    cell_s: float = field(
        default=0.2, metadata={"help": "Seconds of each batch x length of a backend."}
    )
    texts_count: int = field(
        default=96,
        metadata={"help": "Reviews that a load goes round; of queries, eight times as many."},
    )
    queries_goal_ms: float = field(
        default=100.0, metadata={"help": "p99 that a rate must keep on queries."}
    )
    reviews_goal_ms: float = field(
        default=500.0, metadata={"help": "p99 that a rate must keep on reviews."}
    )
    trials: int = field(default=9, metadata={"help": "Rates tried of each, at most."})
    port: int = field(default=8000, metadata={"help": "Port that the servers take in turn."})
    seed: int = field(default=0, metadata={"help": "Seed of texts and arrivals."})
    output: Path = field(default=Path("bench.html"), metadata={"help": "Where the page goes."})
