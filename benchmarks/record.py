"""What one run leaves behind: samples first, everything else derived from them.

A record is JSON; keys carry their unit. Percentiles are never averaged and never stored without
the samples they came from.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

SCHEMA_VERSION = 1
_LIBRARIES = ("miniml", "ray", "onnxruntime", "tokenizers", "locust")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: when it was sent (s since the load began), how long it took, whether it was 200."""

    sent_s: float
    latency_ms: float
    ok: bool


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: always a value that was seen. Raises ValueError on no values."""
    if not values:
        raise ValueError("no values, so no percentile")
    ordered = sorted(values)
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load test of one endpoint.

    samples: after the warm-up only. loop: "closed" (each user waits for its answer), so the rate is
    a result, not a choice. client_cpu_s: CPU time of the load generator over the whole run.
    """

    scenario: Mapping[str, Any]
    samples: tuple[Sample, ...]
    duration_s: float
    warmup_s: float
    client_cpu_s: float
    package_digest: str
    server: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str
    recorded_at: str
    loop: str = "closed"
    schema_version: int = SCHEMA_VERSION

    @property
    def latencies_ms(self) -> list[float]:
        """Latencies of the answered requests."""
        return [sample.latency_ms for sample in self.samples if sample.ok]

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return sum(not sample.ok for sample in self.samples)

    def summary(self) -> dict[str, float]:
        """Rate and latency, derived from the samples."""
        latencies_ms = self.latencies_ms
        texts = len(latencies_ms) * int(self.scenario["texts_per_call"])
        return {
            "requests": len(self.samples),
            "errors": self.errors,
            "requests_per_s": round(len(latencies_ms) / self.duration_s, 2),
            "texts_per_s": round(texts / self.duration_s, 2),
            "p50_ms": round(percentile(latencies_ms, 50), 3),
            "p95_ms": round(percentile(latencies_ms, 95), 3),
            "p99_ms": round(percentile(latencies_ms, 99), 3),
            "max_ms": round(max(latencies_ms), 3),
            "client_cpu_share": round(self.client_cpu_s / (self.duration_s + self.warmup_s), 3),
        }

    def document(self) -> dict[str, object]:
        """The whole record; samples as [sent_s, latency_ms, ok] rows."""
        rows = [[round(s.sent_s, 4), round(s.latency_ms, 3), int(s.ok)] for s in self.samples]
        return {
            **{key: value for key, value in asdict(self).items() if key != "samples"},
            "summary": self.summary(),
            "samples": rows,
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.document()) + "\n", encoding="utf-8")
        return part.replace(path)

    def __rich__(self) -> Table:
        """The summary, for people."""
        title = f"{self.scenario['users']} users, closed loop, {self.duration_s:.0f} s"
        table = Table(title=title, title_justify="left")
        for name in ("requests", "errors", "requests/s", "texts/s", "p50 ms", "p95 ms", "p99 ms"):
            table.add_column(name, justify="right")
        numbers = self.summary()
        table.add_row(
            f"{numbers['requests']}",
            f"{numbers['errors']}",
            f"{numbers['requests_per_s']:.1f}",
            f"{numbers['texts_per_s']:.1f}",
            f"{numbers['p50_ms']:.1f}",
            f"{numbers['p95_ms']:.1f}",
            f"{numbers['p99_ms']:.1f}",
        )
        return table


def machine() -> dict[str, Any]:
    """The machine a number was seen on: CPU model, the cores this process may use, memory."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that make the numbers."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def default_path(scenario: str) -> Path:
    """A new file under miniml's home, named by the time in UTC.

    The home is read here and not from `registry`, which benchmarks do not import: they see a
    server only from outside.
    """
    home = Path(os.environ.get("MINIML_HOME") or ".miniml")
    return home.absolute() / "bench" / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{scenario}.json"


def commit() -> str:
    """The commit of the checkout, with a + when it was changed since; empty outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(git, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
