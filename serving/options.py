"""What `miniml serve` and `miniml predict` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
_KEYS = {"help": "File of keys; default: keys.json under miniml's home."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Serve a package over HTTP until interrupted.

    [bold]miniml serve reviews@latest --port 8000[/]
    """

    package: str = field(
        default="latest",
        metadata={"argument": "PACKAGE", "help": "NAME, NAME@alias, a folder, ..."},
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int = field(default=8000, metadata={"help": "Port to listen on."})
    grpc_port: int | None = field(
        default=None, metadata={"help": "Port for gRPC (Open Inference Protocol); default: none."}
    )
    lanes: int | None = field(
        default=None, metadata={"help": "Batches run at once; default: one a core, 1 on a GPU."}
    )
    threads: int | None = field(default=None, metadata={"help": "Threads of each lane."})
    device: Device = field(
        default="auto",
        metadata={"help": "cpu or cuda: refuse a package exported for the other."},
    )
    gpus: float | None = field(
        default=None, metadata={"help": "GPU of each replica; default 1; 0.5: two share one."}
    )
    min_replicas: int = field(default=1, metadata={"help": "Replicas at least; 0: none when idle."})
    max_replicas: int | None = field(
        default=None, metadata={"help": "Replicas at most: as many as the work needs are started."}
    )
    max_replicas_per_node: int | None = field(
        default=None, metadata={"help": "On one node at most; below --min-replicas none holds all."}
    )
    queue_goal_ms: float = field(
        default=50.0,
        metadata={"help": "How long a text should wait on average; then more replicas."},
    )
    max_queue_ms: float = field(
        default=2000.0, metadata={"help": "Milliseconds of work that may wait; then 429."}
    )
    cache_mb: float = field(
        default=16.0, metadata={"help": "Memory of a replica for known answers; 0 keeps none."}
    )
    cache_ttl_s: float = field(default=600.0, metadata={"help": "Seconds that they are kept."})
    redis_url: str | None = field(
        default=None, metadata={"help": "redis://HOST:PORT/0: replicas share known answers."}
    )
    haproxy: bool = field(
        default=True, metadata={"help": "--no-haproxy: Ray's Python proxy, 11 times the CPU."}
    )
    keys: Path | None = field(
        default=None, metadata={"help": "Ask for an API key of this file (miniml keys create)."}
    )
    insecure: bool = field(
        default=False, metadata={"help": "Listen beyond this machine without keys."}
    )
    allow_code: str | None = field(
        default=None,
        metadata={"help": "MODULE:FUNCTION that the package may change texts by, if not built in."},
    )
    shadow: str | None = field(
        default=None,
        metadata={"help": "A candidate that is asked, too, aside, and compared: NAME@alias, ..."},
    )
    share: str = field(default="10%", metadata={"help": "Of the requests that it is asked."})
    also: tuple[str, ...] = field(
        default=(), metadata={"help": "Another model, loaded when asked for by name; repeat it."}
    )
    models_mb: float = field(
        default=1024.0, metadata={"help": "Memory for these together; then one unused goes."}
    )
    otlp: str | None = field(
        default=None,
        metadata={"help": "http://HOST:4318: send traces there (OpenTelemetry, OTLP over HTTP)."},
    )
    trace_share: float = field(
        default=1.0, metadata={"help": "Share traced of requests whose caller does not trace."}
    )
    request_log: Path | None = field(
        default=None, metadata={"help": "File for a JSON line a request; -: standard output."}
    )
    log_texts: bool = field(default=False, metadata={"help": "Texts in these lines, too."})
    write_config: Path | None = field(
        default=None,
        metadata={
            "help": "Write a config file for Ray's `serve run` and `serve deploy`; start nothing."
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Serve another package on a server that runs; it goes back by itself when the new one fails.

    [bold]miniml deploy reviews@champion --url http://127.0.0.1:8000 --watch 2m[/]

    With keys, $MINIML_API_KEY must hold an admin's.
    """

    package: str | None = field(
        default=None,
        metadata={"argument": "PACKAGE", "help": "NAME, NAME@alias, a folder, ...: latest."},
    )
    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to change."})
    watch: str = field(
        default="2m",
        metadata={
            "help": "Time, as 90s or 2m, in which it is judged by failures and p99; 0: not at all."
        },
    )
    p99_ms: float | None = field(
        default=None,
        metadata={"help": "What its p99 may be; default: twice what it was before, 20 ms more."},
    )
    name: str | None = field(default=None, metadata={"help": "Which model, of several."})
    canary: str | None = field(
        default=None, metadata={"help": "For this share of the requests alone, as 10% or 0.1."}
    )
    end_canary: bool = field(
        default=False, metadata={"help": "What answers the others answers all again."}
    )
    rollback: bool = field(
        default=False, metadata={"help": "Go back at once to the package before."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """Classify texts, with a server or without one; with --output, files of any size.

    [bold]miniml predict "Great soup, slow waiter" --url http://127.0.0.1:8000[/]

    [bold]miniml predict --input reviews.txt --package reviews@latest --json[/]

    [bold]miniml predict --input "s3://bucket/reviews/*.parquet" --output s3://bucket/answers[/]
    """

    texts: tuple[str, ...] = field(
        default=(), metadata={"argument": "TEXT...", "help": "Texts; none reads standard input."}
    )
    input: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "File: one text a line, or .jsonl with `text`. With --output also .parquet, .csv,"
            " .tsv, .gz, folders, patterns, s3://; repeat it for several."
        },
    )
    url: str | None = field(default=None, metadata={"help": "Ask this server."})
    model: str | None = field(default=None, metadata={"help": "Which of the server's, of several."})
    package: str = field(
        default="latest", metadata={"help": "Package reference, when no server is asked."}
    )
    allow_code: str | None = field(
        default=None,
        metadata={"help": "MODULE:FUNCTION that the package may change texts by, if not built in."},
    )
    output: str | None = field(
        default=None,
        metadata={
            "help": "Folder for Parquet, here or s3://: answer all rows on Ray Data; run again to go on."
        },
    )
    text_column: str = field(default="text", metadata={"help": "With --output: where texts are."})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "With --output: where second texts are."}
    )
    columns: tuple[str, ...] = field(
        default=(),
        metadata={"help": "With --output: a column to keep; repeat it. Default: all; -: none."},
    )
    scores: bool = field(default=False, metadata={"help": "With --output: every label's score."})
    prefix: str = field(
        default="", metadata={"help": "With --output: before the names of the answer's columns."}
    )
    on_bad_row: Literal["fail", "null"] = field(
        default="fail",
        metadata={"help": "With --output: a row without a text ends the run, or has no answer."},
    )
    part_rows: int = field(default=20_000, metadata={"help": "With --output: rows of a part."})
    cluster: str | None = field(
        default=None,
        metadata={"help": "With --output: Ray's address (auto, HOST:6379); default: this machine."},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Which server's.

    [bold]miniml cache stats --url http://127.0.0.1:8000[/]
    """

    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to ask."})


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateKeyOptions:
    """Make an API key; it is shown once and kept nowhere.

    [bold]miniml keys create web --texts-per-s 50 --texts-per-day 100000[/]
    """

    name: str = field(metadata={"argument": "NAME", "help": "Who will use it."})
    texts_per_s: int | None = field(default=None, metadata={"help": "Texts a second it may ask."})
    texts_per_day: int | None = field(default=None, metadata={"help": "Texts a day (UTC)."})
    admin: bool = field(default=False, metadata={"help": "It may change the server, too."})
    keys: Path | None = field(default=None, metadata=_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKeysOptions:
    """Who may ask."""

    keys: Path | None = field(default=None, metadata=_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeKeyOptions:
    """Take a key back: within a second no server that reads the file takes it any more.

    [bold]miniml keys revoke web[/]
    """

    name: str = field(metadata={"argument": "NAME", "help": "Whose it is."})
    keys: Path | None = field(default=None, metadata=_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopOptions:
    """What a server does right now, until Ctrl-C.

    [bold]miniml top --url http://127.0.0.1:8000[/]
    """

    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to watch."})
    every_s: float = field(default=1.0, metadata={"help": "Seconds between two looks."})
    looks: int = field(default=0, metadata={"help": "Looks, then end; 0: until Ctrl-C."})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOptions:
    """Which server's.

    [bold]miniml shadow report --url http://127.0.0.1:8000[/]
    """

    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to ask."})


@dataclass(frozen=True, slots=True, kw_only=True)
class StartShadowOptions:
    """Have a candidate answer what callers ask, too, aside; nobody gets its answers.

    [bold]miniml shadow start reviews@candidate --share 10% --url http://127.0.0.1:8000[/]

    With keys, $MINIML_API_KEY must hold an admin's.
    """

    package: str = field(
        metadata={"argument": "PACKAGE", "help": "The candidate: NAME@alias, NAME/3, a folder, ..."}
    )
    share: str = field(default="10%", metadata={"help": "Of the requests: 10%, or 0.1."})
    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to change."})


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteOptions:
    """Serve the candidate that ran as a shadow, and name it champion, if it agreed enough.

    [bold]miniml promote reviews@candidate --min-agreement 0.98 --url http://127.0.0.1:8000[/]
    """

    package: str = field(
        metadata={"argument": "PACKAGE", "help": "The candidate: NAME@alias or NAME/3."}
    )
    min_agreement: float = field(
        default=0.98,
        metadata={"help": "Share of texts at least, by the lower end of its interval."},
    )
    min_texts: int = field(default=1000, metadata={"help": "Texts compared at least."})
    alias: str = field(default="champion", metadata={"help": "Alias that is pointed at it."})
    watch: str = field(
        default="2m", metadata={"help": "Time in which it may still go back; as in miniml deploy."}
    )
    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "The server to change."})
