"""Arrivals to replay: read from a record or a file, or made with a seed. Knows no policy."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import BadTrace
from benchmarks.planning.simulator import Arrival
from benchmarks.workloads import WORKLOADS

CountTokens = Callable[[Sequence[str]], list[int]]
# As many different texts as `bench load` sends; more arrivals than that repeat them.
_TEXTS = 2048


def made_arrivals(
    workload: str, count: int, *, seed: int, count_tokens: CountTokens
) -> list[Arrival]:
    """*count* texts of a workload by a Poisson process of one a second."""
    tokens = count_tokens(WORKLOADS[workload](min(count, _TEXTS), seed))
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    arrivals, now_s = [], 0.0
    for place in range(count):
        now_s += chance.expovariate(1.0)
        arrivals.append(Arrival(arrived_s=now_s, tokens=tokens[place % len(tokens)]))
    return arrivals


def at_rate(arrivals: Sequence[Arrival], texts_per_s: float) -> list[Arrival]:
    """The same arrivals with the same rhythm, faster or slower."""
    factor = rate_per_s(arrivals) / texts_per_s
    return [Arrival(arrived_s=a.arrived_s * factor, tokens=a.tokens) for a in arrivals]


def rate_per_s(arrivals: Sequence[Arrival]) -> float:
    """Texts a second, on average; the first comes a gap after 0."""
    return len(arrivals) / arrivals[-1].arrived_s


def read_arrivals(path: Path, *, workload: str | None, count_tokens: CountTokens) -> list[Arrival]:
    """A `.jsonl` file of {"arrived_s", "tokens"}, or a JSON record of ours that keeps samples.

    A record says when each request was sent; the lengths are those of its scenario's workload, or
    of *workload*. Raises `BadTrace`.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrace(
            f"{path} cannot be read ({error}); give a record or a .jsonl file."
        ) from error
    try:
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in content.split("\n") if line.strip()]
            arrivals = [
                Arrival(arrived_s=float(row["arrived_s"]), tokens=int(row["tokens"]))
                for row in rows
            ]
        else:
            arrivals = _from_record(json.loads(content), workload, count_tokens)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadTrace(
            f"{path} holds no arrivals ({error!r}); give a record with samples, or JSONL with"
            " `arrived_s` and `tokens`."
        ) from error
    return _from_zero(arrivals, path)


def _from_record(
    record: Mapping[str, Any], workload: str | None, count_tokens: CountTokens
) -> list[Arrival]:
    """The record's own samples, or those of its longest open loop, or longest run."""
    scenario = record.get("scenario", {})
    runs = record.get("runs") or [record]
    run = max(runs, key=lambda run: (bool(run.get("rate_per_s")), len(run["samples"])))
    sent_s = sorted(_sent_s(sample) for sample in run["samples"])
    name = workload or run.get("workload") or scenario.get("workload")
    if name not in WORKLOADS:
        raise BadTrace(
            f"The record's texts ({name}) are not kept in it; say by --workload whose lengths to take:"
            f" {' or '.join(WORKLOADS)}."
        )
    tokens = count_tokens(WORKLOADS[name](_TEXTS, int(scenario.get("seed", 0))))
    return [
        Arrival(arrived_s=at_s, tokens=tokens[place % len(tokens)])
        for place, at_s in enumerate(sent_s)
    ]


def _sent_s(sample: Any) -> float:
    return float(sample["sent_s"] if isinstance(sample, dict) else sample[0])


def _from_zero(arrivals: list[Arrival], path: Path) -> list[Arrival]:
    """In order of time; the first comes a mean gap after 0."""
    arrivals.sort(key=lambda arrival: arrival.arrived_s)
    if len(arrivals) < 2 or arrivals[0].arrived_s == arrivals[-1].arrived_s:  # noqa: PLR2004
        raise BadTrace(
            f"{path} holds {len(arrivals)} arrival(s) at one time; two times are needed."
        )
    if (least := min(arrival.tokens for arrival in arrivals)) < 1:
        raise BadTrace(f"{path} has a text of {least} tokens; every text has one at least.")
    first_s, last_s = arrivals[0].arrived_s, arrivals[-1].arrived_s
    begin_s = first_s - (last_s - first_s) / (len(arrivals) - 1)
    return [Arrival(arrived_s=a.arrived_s - begin_s, tokens=a.tokens) for a in arrivals]
