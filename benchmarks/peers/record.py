"""What `bench peers` leaves: every run of every peer; medians, ratios and tables follow from them."""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from benchmarks.bisection import highest_held
from benchmarks.peers.checking import LabelAgreement
from benchmarks.peers.goals import RATE_GOALS, TEXTS_GOALS
from benchmarks.peers.line_up import OURS
from benchmarks.peers.runs import PeerRun
from benchmarks.peers.tables import closed_table, cost_table, peers_table, rate_table
from benchmarks.record import SCHEMA_VERSION, commit, machine, versions

# Fields that are JSON as they are.
_PLAIN = (
    *("peers", "missing", "goals_ms", "scenario", "package_digest", "precision", "machine"),
    *("versions", "commit", "recorded_at", "schema_version", "kind", "package"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersRecord:
    """peers: name -> what it is. agreement: name -> a check for each time it was started.

    runs: in the order they ran. goals_ms: workload -> of the p99. scenario: what was asked for.
    missing: name -> why it was not measured, or not to the end.
    """

    peers: Mapping[str, str]
    agreement: Mapping[str, Sequence[LabelAgreement]]
    runs: Sequence[PeerRun]
    goals_ms: Mapping[str, float]
    scenario: Mapping[str, Any]
    package_digest: str
    precision: str
    missing: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    package: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "peers"
    schema_version: int = SCHEMA_VERSION

    def closed(self, peer: str, workload: str) -> list[PeerRun]:
        """The closed loops, one a round."""
        return [run for run in self._of(peer, workload) if run.rate_per_s is None]

    def rates(self, peer: str, workload: str) -> list[float]:
        """The highest rate within the goal of each round; 0 where none held."""
        opened = [run for run in self._of(peer, workload) if run.rate_per_s is not None]
        goal_ms = self.goals_ms[workload]
        return [
            highest_held([run.tried(goal_ms) for run in opened if run.round == round_])
            for round_ in sorted({run.round for run in opened})
        ]

    def summary(self, peer: str, workload: str) -> dict[str, float | None]:
        """Medians over the rounds; how many times *peer*'s ours are, None for what was not seen.

        errors: in closed loops; while a rate is searched for, a refusal is an answer.
        times_server_cpu: how many times ours a request of *peer* costs. server_memory_mb: the most.
        """
        runs, ours = self.closed(peer, workload), self.closed(OURS, workload)
        rates, our_rates = self.rates(peer, workload), self.rates(OURS, workload)
        return {
            "texts_per_s": _median([run.texts_per_s for run in runs]),
            "p50_ms": _median([run.percentile_ms(50) for run in runs]),
            "p99_ms": _median([run.percentile_ms(99) for run in runs]),
            "errors": sum(run.errors for run in runs),
            "times_texts_per_s": _times(
                [run.texts_per_s for run in ours], [run.texts_per_s for run in runs]
            ),
            "rate_in_goal_per_s": _median(rates),
            "times_rate_in_goal": _times(our_rates, rates),
            "client_bound_runs": sum(run.client_bound for run in self._of(peer, workload)),
            "server_cpu_ms_per_request": _median(_cpu_ms(runs)),
            "times_server_cpu": _times(_cpu_ms(runs), _cpu_ms(ours)),
            "server_memory_mb": max(
                (run.cost.pss_bytes / 1e6 for run in runs if run.cost), default=None
            ),
        }

    def document(self) -> dict[str, object]:
        """Every sample, and what is derived from them."""
        return {
            "kind": "peers",
            **{name: getattr(self, name) for name in _PLAIN},
            "agreement": {
                name: [asdict(check) for check in checks] for name, checks in self.agreement.items()
            },
            "runs": [run.document() for run in self.runs],
            "summary": {
                workload: {peer: self.summary(peer, workload) for peer in self.peers}
                for workload in self.goals_ms
            },
            "texts_goals": {name: dict(goals) for name, goals in TEXTS_GOALS.items()},
            "rate_goals": {name: dict(goals) for name, goals in RATE_GOALS.items()},
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.document()) + "\n", encoding="utf-8")
        return part.replace(path)

    def __rich__(self) -> Group:
        """Who they are, then two tables a workload, then what they cost."""
        parts: list[Table | str] = [peers_table(self)]
        for workload in self.goals_ms:
            parts += ["", closed_table(self, workload)]
            if any(self.rates(peer, workload) for peer in self.peers):
                parts += ["", rate_table(self, workload)]
        if any(run.cost for run in self.runs):
            parts += ["", cost_table(self)]
        return Group(*parts)

    def _of(self, peer: str, workload: str) -> list[PeerRun]:
        return [run for run in self.runs if (run.peer, run.workload) == (peer, workload)]


def _cpu_ms(runs: Sequence[PeerRun]) -> list[float]:
    return [ms for run in runs if (ms := run.server_cpu_ms_per_request) is not None]


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def _times(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The first over the second, by medians; None when either is missing or the second is 0."""
    if not first or not second or not statistics.median(second):
        return None
    return round(statistics.median(first) / statistics.median(second), 3)
