"""What `miniml bench soak` leaves behind: every request, every look at the memory, and what grew."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from benchmarks.bottleneck import client_fault, rate_fault
from benchmarks.load.record import run_document, summary
from benchmarks.record import commit, machine, now, versions, write_document
from benchmarks.soak.growth import MOST_GROWTH, growth, slope_per_hour
from benchmarks.soak.sampling import MemoryLook
from benchmarks.wire import WireRun

SCHEMA_VERSION = 1
ALL = "all"
_WINDOWS, _LEAST_WINDOW_S = 60, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySeries:
    """Memory over time, in MB. name: of a role; `ALL` is their sum."""

    name: str
    at_s: tuple[float, ...]
    mb: tuple[float, ...]

    @property
    def growth(self) -> float | None:
        """Share by which the last fifth's median is above the first's."""
        return growth(self.mb)

    @property
    def slope_mb_per_hour(self) -> float | None:
        """The middle of all pairs' slopes."""
        return slope_per_hour(self.at_s, self.mb)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakRecord:
    """run: the load, its window after the warm-up. looks: at the memory, from the load's begin on.

    known_share: of the texts, those whose answer was known. capacity_per_s: requests/s of the closed
    loop before; rate_per_s: what was asked for.
    """

    run: WireRun
    looks: Sequence[MemoryLook]
    known_share: float
    capacity_per_s: float
    rate_per_s: float
    scenario: Mapping[str, Any]
    package_digest: str
    package: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)

    @property
    def series(self) -> list[MemorySeries]:
        """Own memory: all together, then each role, most first; after the warm-up."""
        return memory_series(self._seen, begin_s=self.run.warmup_s)

    @property
    def series_of_all(self) -> list[MemorySeries]:
        """The same with the warm-up."""
        return memory_series(self._seen, begin_s=0.0)

    @property
    def _seen(self) -> list[tuple[float, Mapping[str, int]]]:
        return [(look.at_s - self.run.began_s, look.own_bytes) for look in self.looks]

    @property
    def pss(self) -> dict[str, MemorySeries]:
        """By role, and of `ALL`: with the libraries that neighbours may have mapped, too."""
        seen = [(look.at_s - self.run.began_s, look.pss_bytes) for look in self.looks]
        return {one.name: one for one in memory_series(seen, begin_s=self.run.warmup_s)}

    @property
    def errors(self) -> int:
        """Requests of the window that were not answered with 200."""
        return sum(self.run.errors.values())

    @property
    def windows(self) -> list[WireRun]:
        """The run in sixty parts, or parts of a second."""
        length_s = max(self.run.duration_s / _WINDOWS, _LEAST_WINDOW_S)
        count = int(self.run.duration_s / length_s)
        edges = [self.run.warmup_s + place * length_s for place in range(count + 1)]
        return [self.run.window(begin, end) for begin, end in itertools.pairwise(edges)]

    @property
    def faults(self) -> list[str]:
        """Why the numbers may not be the server's, or not those asked for."""
        found = [client_fault(self.run), rate_fault(self.run, self.rate_per_s)]
        return [fault for fault in found if fault]

    def result(self) -> dict[str, Any]:
        """The answer in numbers."""
        whole = self.series[0]
        return {
            "memory_growth": whole.growth,
            "memory_mb_per_hour": whole.slope_mb_per_hour,
            "pss_growth": self.pss[ALL].growth,
            "most_growth": MOST_GROWTH,
            "errors": self.errors,
        }

    def document(self) -> dict[str, Any]:
        """Everything, and what is derived from it."""
        roles = sorted({role for look in self.looks for role in look.own_bytes})
        return {
            "kind": "soak",
            "schema_version": SCHEMA_VERSION,
            "loop": "open",
            "package_digest": self.package_digest,
            "package": self.package,
            "scenario": self.scenario,
            "machine": self.machine,
            "versions": self.versions,
            "commit": self.commit,
            "recorded_at": self.recorded_at,
            "capacity_per_s": round(self.capacity_per_s, 2),
            "rate_per_s": round(self.rate_per_s, 2),
            "known_share": round(self.known_share, 4),
            "result": self.result(),
            "faults": self.faults,
            "summary": summary(self.run),
            "memory": {
                "at_s": [round(look.at_s - self.run.began_s, 1) for look in self.looks],
                "own_mb": {
                    role: [round(look.own_bytes.get(role, 0) / 1e6, 2) for look in self.looks]
                    for role in roles
                },
                "pss_mb": {
                    role: [round(look.pss_bytes.get(role, 0) / 1e6, 2) for look in self.looks]
                    for role in roles
                },
            },
            **run_document(self.run),
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        return write_document(self.document(), path)

    def __rich__(self) -> Group:
        from benchmarks.soak.tables import as_tables

        return as_tables(self)


def memory_series(
    seen: Sequence[tuple[float, Mapping[str, int]]], *, begin_s: float
) -> list[MemorySeries]:
    """Of looks (s, role -> bytes) from *begin_s* on: the sum first, then roles, most memory first."""
    kept = [(at_s, by_role) for at_s, by_role in seen if at_s >= begin_s]
    at_s = tuple(at for at, _ in kept)
    roles = {role for _, by_role in kept for role in by_role}
    each = [
        MemorySeries(
            name=role,
            at_s=at_s,
            mb=tuple(by_role.get(role, 0) / 1e6 for _, by_role in kept),
        )
        for role in roles
    ]
    whole = MemorySeries(
        name=ALL, at_s=at_s, mb=tuple(sum(by_role.values()) / 1e6 for _, by_role in kept)
    )
    return [whole, *sorted(each, key=lambda one: (-sum(one.mb), one.name))]
