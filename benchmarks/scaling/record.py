"""What `miniml bench scaling` leaves: each policy's replicas second by second, and how long texts waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from benchmarks.record import commit, machine, now, versions, write_document
from benchmarks.scaling.simulator import BIN_EDGES_S, Simulated
from benchmarks.scaling.trace import LoadTrace

SCHEMA_VERSION = 1
OURS, DEFAULT = "ours", "Ray's default"
LEAST_MS = 1.0  # of a wait: less than that a fluid does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRun:
    """One policy on one trace. parameter: where the policy has one, the best of *tried* in hindsight.

    tried: parameter -> (p99 wait in ms, replica-seconds).
    """

    trace: str
    policy: str
    parameter: str
    tried: Mapping[str, tuple[float, float]]
    simulated: Simulated

    @property
    def name(self) -> str:
        """The policy with its parameter."""
        return f"{self.policy} ({self.parameter})" if self.parameter else self.policy

    def summary(self) -> dict[str, float]:
        """Derived from the seconds and the bins; waits from a millisecond on."""
        seen = self.simulated
        return {
            "p99_wait_ms": round(max(seen.wait_ms(99), LEAST_MS), 2),
            "p999_wait_ms": round(max(seen.wait_ms(99.9), LEAST_MS), 2),
            "replica_s": round(seen.replica_s),
            "wasted_s": round(seen.wasted_s),
            "changes": seen.changes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRecord:
    """runs: of each trace ours, Ray's default, and Ray's with the parameters best there."""

    traces: Sequence[LoadTrace]
    runs: Sequence[ScalingRun]
    scenario: Mapping[str, Any]
    recorded_at: str = field(default_factory=now)
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)

    def of(self, trace: LoadTrace) -> list[ScalingRun]:
        """The runs on *trace*."""
        return [run for run in self.runs if run.trace == trace.name]

    def ratios(self, trace: LoadTrace) -> dict[str, float]:
        """Ray's default over ours: above 1, ours is better."""
        found = {run.policy: run.summary() for run in self.of(trace)}
        ours, other = found[OURS], found[DEFAULT]
        return {
            key: round(other[key] / ours[key], 2)
            for key in ("p99_wait_ms", "replica_s", "wasted_s")
        }

    def document(self) -> dict[str, object]:
        """Everything, and what is derived from it."""
        return {
            "kind": "scaling",
            "schema_version": SCHEMA_VERSION,
            "package_digest": "",  # no package is run
            "scenario": self.scenario,
            "machine": self.machine,
            "versions": self.versions,
            "commit": self.commit,
            "recorded_at": self.recorded_at,
            "wait_bin_edges_s": [float(f"{edge:.4g}") for edge in BIN_EDGES_S],
            "traces": {
                trace.name: {
                    "texts_per_s": np.round(trace.texts_per_s, 2).tolist(),
                    "text_ms": np.round(trace.text_ms, 3).tolist(),
                    "default_over_ours": self.ratios(trace),
                }
                for trace in self.traces
            },
            "runs": [_document(run) for run in self.runs],
        }

    def __rich__(self) -> Group:
        from benchmarks.scaling.tables import as_tables

        return as_tables(self)

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)


def _document(run: ScalingRun) -> dict[str, object]:
    seen = run.simulated
    filled = np.flatnonzero(seen.waits)
    return {
        "trace": run.trace,
        "policy": run.policy,
        "parameter": run.parameter,
        "tried": run.tried,
        "wanted": seen.wanted.astype(int).tolist(),
        "alive": seen.alive.astype(int).tolist(),
        "waiting_s": np.round(seen.waiting_s, 3).tolist(),
        "busy_s": round(seen.busy_s, 1),
        "waits": [[int(place), float(f"{seen.waits[place]:.4g}")] for place in filled],
        "summary": run.summary(),
    }
