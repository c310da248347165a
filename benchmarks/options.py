"""What `miniml bench` can be told; light, so that the front door can show its help at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Closed-loop load test with Locust; leaves a JSON record.

    [bold]miniml bench load --url http://127.0.0.1:8000 --users 32 --duration-s 30[/]
    """

    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "Endpoint to load."})
    texts: Path | None = field(
        default=None,
        metadata={"help": "File of texts, .txt or .jsonl; default: the endpoint's own examples."},
    )
    workload: Literal["reviews", "queries"] | None = field(
        default=None, metadata={"help": "Made-up texts as long as real ones, instead of a file."}
    )
    texts_per_call: int = field(default=1, metadata={"help": "Texts in one request."})
    users: int = field(default=8, metadata={"help": "Connections, each with one request."})
    duration_s: float = field(default=15.0, metadata={"help": "Seconds measured."})
    warmup_s: float = field(default=2.0, metadata={"help": "Seconds before, not measured."})
    seed: int = field(default=0, metadata={"help": "Seed of the order of the texts."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Serve a package, ask five reviews, load it, stop it, and show what it is.

    [bold]miniml bench demo --package demo@latest[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference."})
    port: int = field(default=8000, metadata={"help": "Port to serve on meanwhile."})
    users: int = field(default=8, metadata={"help": "Connections, each with one request."})
    duration_s: float = field(default=15.0, metadata={"help": "Seconds measured."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """A package beside plain ONNX fp32 and the transformers pipeline, without a server.

    [bold]miniml bench engine --package reviews@latest --threads 1[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    checkpoint: str | None = field(
        default=None, metadata={"help": "What it was exported from; by default found by lineage."}
    )
    texts: Path | None = field(
        default=None,
        metadata={"help": "File of texts, .txt or .jsonl; default: the checkpoint's exam."},
    )
    texts_count: int = field(default=64, metadata={"help": "Texts in a round, at most."})
    threads: int = field(default=1, metadata={"help": "Threads of each backend."})
    batch: int = field(default=1, metadata={"help": "Texts a call."})
    rounds: int = field(default=5, metadata={"help": "Rounds, each over all backends in turn."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of texts."})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersOptions:
    """A package beside what users would pick instead: same checkpoint, cores and load, over HTTP.

    [bold]miniml bench peers --package reviews@latest[/]

    [bold]miniml bench peers --peers plain-fastapi --rounds 1 --duration-s 3 --search-steps 0[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    checkpoint: str | None = field(
        default=None, metadata={"help": "What it was exported from; by default found by lineage."}
    )
    peers: tuple[str, ...] = field(
        default=(),
        metadata={"help": "prototype, plain-fastapi or ray-batch; repeat it. Default: all."},
    )
    rounds: int = field(default=3, metadata={"help": "Rounds, each over all peers in turn."})
    connections: int = field(default=32, metadata={"help": "Connections of the closed loop."})
    duration_s: float = field(default=8.0, metadata={"help": "Seconds of a closed loop."})
    search_s: float = field(default=5.0, metadata={"help": "Seconds at each rate tried."})
    search_steps: int = field(
        default=6, metadata={"help": "Rates tried at most; 0 leaves the search out."}
    )
    warmup_s: float = field(default=2.0, metadata={"help": "Seconds before each, not measured."})
    queries_goal_ms: float = field(
        default=100.0, metadata={"help": "p99 that a rate must keep on queries."}
    )
    reviews_goal_ms: float = field(
        default=500.0, metadata={"help": "p99 that a rate must keep on reviews."}
    )
    port: int = field(default=8000, metadata={"help": "Port that the servers take in turn."})
    seed: int = field(default=0, metadata={"help": "Seed of the texts and of the arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOptions:
    """The serving core against what its engine can do: rates, light load, overload, exactness.

    Starts a server of its own and stops it again.

    [bold]miniml bench core --package demo@latest --only closed,calls --rounds 1[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    port: int = field(default=8000, metadata={"help": "Port to serve on meanwhile."})
    workload: Literal["reviews", "queries"] | None = field(
        default=None, metadata={"help": "Texts as long as these; default: both."}
    )
    only: str = field(
        default="",
        metadata={
            "help": "Parts, with commas: closed, calls, light, queue, exact, overload, memory, start."
        },
    )
    rounds: int = field(default=3, metadata={"help": "Rounds, each over all parts in turn."})
    seconds_s: float = field(
        default=10.0, metadata={"help": "Seconds measured of each load.", "flag": "--seconds"}
    )
    warmup_s: float = field(default=3.0, metadata={"help": "Seconds before, not measured."})
    overload_s: float = field(default=30.0, metadata={"help": "Seconds of overload a round."})
    seed: int = field(default=0, metadata={"help": "Seed of texts and arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
