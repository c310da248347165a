"""What `miniml bench planner` leaves: every text's times under every policy, and what follows."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from rich.console import Group

from benchmarks.planning.simulator import Replay
from benchmarks.record import commit, machine, percentile, versions
from serving.cost import GridCost
from serving.package import CostGrid

SCHEMA_VERSION = 1
OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerRun:
    """One load under one policy.

    share: of the offline ceiling that arrived, in an open loop; None in a closed one. parameter: the
    policy's, the best of *tried* (parameter -> p99 in ms, in a closed loop texts/s).
    """

    workload: str
    loop: Literal["open", "closed"]
    share: float | None
    policy: str
    parameter: str
    tried: Mapping[str, float]
    replay: Replay

    @property
    def latencies_ms(self) -> list[float]:
        """From a text's arrival to its answer."""
        return latencies_ms(self.replay)


def latencies_ms(replay: Replay) -> list[float]:
    """Of each text, from its arrival to the end of its batch."""
    return [q + b for q, b in zip(replay.queue_ms, replay.batch_ms, strict=True)]


def texts_per_s(replay: Replay) -> float:
    """Until the last answer."""
    ends_s = (a + ms / 1e3 for a, ms in zip(replay.arrived_s, latencies_ms(replay), strict=True))
    return len(replay.queue_ms) / max(ends_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerRecord:
    """tokens: workload -> of each text, by its place. offline_texts_per_s: workload -> the ceiling.

    measured: the grid that the truth, grid, is smoothed from. decisions: case -> CPU ms of one decision of ours each.
    runs: ours first within each load.
    """

    tokens: Mapping[str, Sequence[int]]
    offline_texts_per_s: Mapping[str, float]
    measured: CostGrid
    grid: CostGrid
    runs: Sequence[PlannerRun]
    decisions: Mapping[str, Sequence[float]]
    scenario: Mapping[str, Any]
    package_digest: str
    precision: str
    recorded_at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    kind: str = "planner"
    schema_version: int = SCHEMA_VERSION

    def of(
        self, workload: str, loop: Literal["open", "closed"], share: float | None = None
    ) -> list[PlannerRun]:
        """The runs of one load; of all shares when none is given."""
        return [
            run
            for run in self.runs
            if (run.workload, run.loop) == (workload, loop) and share in (None, run.share)
        ]

    def summary(self, run: PlannerRun) -> dict[str, float]:
        """Derived from the samples; nothing is excluded, the planner's learning neither.

        The longest tenth are the texts longer than nine tenths are; where more than a tenth were
        cut at the model's length, those.
        """
        replay, latencies = run.replay, run.latencies_ms
        long_ms, rest_ms = self._split(run)
        cost = GridCost(self.grid)
        alone_ms = {length: cost.ms(1, length) for length in set(self.tokens[run.workload])}
        waits = zip(replay.queue_ms, self.tokens[run.workload], strict=True)
        return {
            "texts_per_s": round(texts_per_s(replay), 2),
            "of_offline": round(texts_per_s(replay) / self.offline_texts_per_s[run.workload], 4),
            "useful_token_ratio": round(replay.useful_tokens / replay.padded_tokens, 4),
            "texts_per_batch": round(len(latencies) / replay.batches, 2),
            "p50_ms": round(percentile(latencies, 50), 2),
            "p99_ms": round(percentile(latencies, 99), 2),
            "queue_p99_longest_tenth_ms": round(percentile(long_ms, 99), 2),
            "queue_p99_rest_ms": round(percentile(rest_ms, 99), 2),
            "worst_wait_in_own_costs": round(max(ms / alone_ms[n] for ms, n in waits), 1),
        }

    def queue_by_length(self, run: PlannerRun, parts: int) -> list[tuple[float, float]]:
        """(median tokens, p99 of the queue time in ms) of *parts* equal parts, shortest first."""
        pairs = list(zip(self.tokens[run.workload], run.replay.queue_ms, strict=True))
        pairs.sort(key=itemgetter(0))  # by length alone: equals stay in order of arrival
        edges = [round(part * len(pairs) / parts) for part in range(parts + 1)]
        chunks = [pairs[low:high] for low, high in itertools.pairwise(edges)]
        return [
            (
                statistics.median(length for length, _ in chunk),
                percentile([ms for _, ms in chunk], 99),
            )
            for chunk in chunks
            if chunk
        ]

    def document(self) -> dict[str, object]:
        """Every sample, and what is derived from them."""
        plain = {
            key: getattr(self, key)
            for key in self.__slots__
            if key not in ("measured", "grid", "runs")
        }
        return {
            **plain,
            "measured": asdict(self.measured),
            "grid": asdict(self.grid),
            "decisions": {
                case: [round(ms, 4) for ms in times] for case, times in self.decisions.items()
            },
            "runs": [{**_document(run), "summary": self.summary(run)} for run in self.runs],
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.document()) + "\n", encoding="utf-8")
        return part.replace(path)

    def __rich__(self) -> Group:
        """Two tables a workload (open and closed loops never share one), and the decisions."""
        from benchmarks.planning.tables import closed_table, decision_line, open_table

        parts = [
            table
            for name in self.tokens
            for table in (open_table(self, name), closed_table(self, name))
        ]
        return Group(*parts, decision_line(self))

    def _split(self, run: PlannerRun) -> tuple[list[float], list[float]]:
        tokens = self.tokens[run.workload]
        limit = min(percentile(tokens, 90), max(tokens) - 1)
        long_ms: list[float] = []
        rest_ms: list[float] = []
        for length, ms in zip(tokens, run.replay.queue_ms, strict=True):
            (long_ms if length > limit else rest_ms).append(ms)
        return long_ms, rest_ms or long_ms


def _document(run: PlannerRun) -> dict[str, Any]:
    """Times by the text's place; a text's latency is its queue and its batch."""
    replay = run.replay
    return {
        "workload": run.workload,
        "loop": run.loop,
        "share_of_offline": run.share,
        "policy": run.policy,
        "parameter": run.parameter,
        "tried": {name: round(value, 2) for name, value in run.tried.items()},
        "batches": replay.batches,
        "useful_tokens": replay.useful_tokens,
        "padded_tokens": replay.padded_tokens,
        "arrived_s": [round(at_s, 4) for at_s in replay.arrived_s],
        "queue_ms": [round(ms, 1) for ms in replay.queue_ms],
        "batch_ms": [round(ms, 1) for ms in replay.batch_ms],
    }
