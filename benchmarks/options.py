"""What `miniml bench` can be told; light, so that the front door can show its help at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Workload = Literal["reviews", "queries", "mixed", "long", "repeated", "examples"]
_TEXTS_HELP = "File of texts, .txt or .jsonl, instead of a workload."
_WORKLOAD_HELP = (
    "Made-up texts as long as real ones, or the endpoint's own examples; default: reviews."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Load test of an endpoint, closed or open loop, with Locust; leaves a JSON record.

    [bold]miniml bench load --url http://127.0.0.1:8000 --users 32 --duration-s 30[/]

    [bold]miniml bench load --rate-per-s 50 --workload queries --shape steps[/]
    """

    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "Endpoint to load."})
    texts: Path | None = field(default=None, metadata={"help": _TEXTS_HELP})
    workload: Workload | None = field(default=None, metadata={"help": _WORKLOAD_HELP})
    texts_per_call: int = field(default=1, metadata={"help": "Texts in one request, 1 to 64."})
    users: int | None = field(
        default=None,
        metadata={
            "help": "Closed loop: connections, each with one request, 8 by default. Open loop: the"
            " most requests under way, 256 by default."
        },
    )
    rate_per_s: float | None = field(
        default=None,
        metadata={"help": "Open loop: requests a second, due whatever the server does."},
    )
    arrivals: Literal["poisson", "constant"] = field(
        default="poisson", metadata={"help": "Open loop: by chance, or evenly spaced."}
    )
    shape: Literal["steady", "ramp", "steps"] = field(
        default="steady",
        metadata={
            "help": "Rise to the rate, or the users, from a fifth of it: in a line, in steps."
        },
    )
    client: Literal["locust", "wire"] = field(
        default="locust",
        metadata={"help": "wire: our own lean client, where Locust would take the server's cores."},
    )
    processes: int = field(default=1, metadata={"help": "Locust's workers; one record of all."})
    duration_s: float = field(default=15.0, metadata={"help": "Seconds measured."})
    warmup_s: float = field(default=2.0, metadata={"help": "Seconds before, not measured."})
    seed: int = field(default=0, metadata={"help": "Seed of texts, their order, and arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SloOptions:
    """The highest rate at which an endpoint keeps its latency goal, how sure that is, and the knee.

    [bold]miniml bench slo --p99-ms 100 --url http://127.0.0.1:8000 --workload queries[/]
    """

    p99_ms: float = field(default=100.0, metadata={"help": "Goal: the 99th percentile at most."})
    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "Endpoint to load."})
    texts: Path | None = field(default=None, metadata={"help": _TEXTS_HELP})
    workload: Workload | None = field(default=None, metadata={"help": _WORKLOAD_HELP})
    texts_per_call: int = field(default=1, metadata={"help": "Texts in one request, 1 to 64."})
    client: Literal["wire", "locust"] = field(
        default="wire",
        metadata={"help": "wire: our own lean client, for cores shared with the server."},
    )
    trial_s: float = field(default=8.0, metadata={"help": "Seconds at each rate, or more if rare."})
    warmup_s: float = field(default=1.0, metadata={"help": "Seconds before, not measured."})
    repeats: int = field(default=3, metadata={"help": "Trials of the rates that decide."})
    max_trials: int = field(default=24, metadata={"help": "Trials at most, the curve's left out."})
    precision: float = field(
        default=0.05,
        metadata={"help": "How near the rate that fails must be to the one that holds."},
    )
    curve: bool = field(
        default=True, metadata={"help": "Also measure a quarter, half, and three quarters of it."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of texts, their order, and arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """Search lanes, threads, batch and queue limits, and packages for the highest rate on your texts.

    Starts a server of each setting in turn, and writes the best as a config file for Ray Serve.

    [bold]miniml bench tune --package reviews@latest --texts mine.txt --budget-minutes 20[/]

    [bold]miniml bench tune --package small@latest --package large@latest --p99-ms 50[/]
    """

    package: tuple[str, ...] = field(
        default=("latest",), metadata={"help": "Package reference; repeat it for variants."}
    )
    texts: Path | None = field(default=None, metadata={"help": _TEXTS_HELP})
    workload: Workload | None = field(default=None, metadata={"help": _WORKLOAD_HELP})
    texts_per_call: int = field(default=1, metadata={"help": "Texts in one request, 1 to 64."})
    p99_ms: float = field(default=100.0, metadata={"help": "Goal: the 99th percentile at most."})
    budget_minutes: float = field(default=15.0, metadata={"help": "Time for all of it."})
    trial_s: float = field(default=5.0, metadata={"help": "Seconds at each rate tried."})
    warmup_s: float = field(default=1.0, metadata={"help": "Seconds before, not measured."})
    port: int = field(default=8000, metadata={"help": "Port that the servers take in turn."})
    write_config: Path = field(
        default=Path("serve.yaml"), metadata={"help": "Where the best goes, for `serve run`."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of texts, their order, and arrivals."})
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
class CacheBenchOptions:
    """What known answers are worth: computed, known, and as callers repeat texts, in one run.

    [bold]miniml bench cache --package demo@latest[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference."})
    port: int = field(default=8000, metadata={"help": "Port to serve on meanwhile."})
    rounds: int = field(default=3, metadata={"help": "Rounds, each over all ways in turn."})
    seconds: float = field(default=6.0, metadata={"help": "Seconds measured of each."})
    warmup_s: float = field(
        default=2.0, metadata={"help": "Seconds before, not measured; none before repeated texts."}
    )
    connections: int = field(default=32, metadata={"help": "Each with one request at a time."})
    distinct: int = field(default=10_000, metadata={"help": "Different texts that are repeated."})
    exponent: float = field(default=1.1, metadata={"help": "Of Zipf's law."})
    seed: int = field(default=0, metadata={"help": "Seed of texts and of their order."})
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

    All eight servers, three rounds: an hour, and ten minutes more the first time, when four of
    them are installed, each in an environment of its own below miniml's home.

    [bold]miniml bench peers --package reviews@latest[/]

    [bold]miniml bench peers --peers plain-fastapi --rounds 1 --duration-s 3 --search-steps 0[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    checkpoint: str | None = field(
        default=None, metadata={"help": "What it was exported from; by default found by lineage."}
    )
    peers: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prototype, plain-fastapi, ray-batch, litserve, bentoml, mlserver or infinity;"
            " repeat it. Default: all."
        },
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
    texts_count: int = field(
        default=256,
        metadata={"help": "Reviews that a load goes round; of queries, eight times as many."},
    )
    rounds: int = field(default=3, metadata={"help": "Rounds, each over all parts in turn."})
    seconds_s: float = field(
        default=10.0, metadata={"help": "Seconds measured of each load.", "flag": "--seconds"}
    )
    warmup_s: float = field(default=3.0, metadata={"help": "Seconds before, not measured."})
    overload_rounds: int = field(default=3, metadata={"help": "Rounds with overload, at most."})
    overload_s: float = field(default=60.0, metadata={"help": "Seconds of overload a round."})
    seed: int = field(default=0, metadata={"help": "Seed of texts and arrivals."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerOptions:
    """The planner beside other ways to batch, on the same arrivals; simulated, so it needs no server.

    Leaves a record and a page with figures.

    [bold]miniml bench planner --package reviews@latest[/]

    [bold]miniml bench planner --trace arrivals.jsonl --lanes 4[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    workload: Literal["reviews", "queries"] | None = field(
        default=None, metadata={"help": "Texts as long as these; default: both."}
    )
    trace: Path | None = field(
        default=None,
        metadata={
            "help": "Recorded arrivals: a record with samples, or .jsonl of arrived_s and tokens."
        },
    )
    texts_count: int = field(default=6000, metadata={"help": "Arrivals of each workload, at most."})
    measure: bool = field(
        default=False,
        metadata={"help": "Measure costs on this machine first, instead of the package's grid."},
    )
    lanes: int = field(default=2, metadata={"help": "Lanes simulated."})
    callers: int = field(default=32, metadata={"help": "Callers of the closed loop."})
    seed: int = field(default=0, metadata={"help": "Seed of texts, arrivals and noise."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
