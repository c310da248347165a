"""What every record tells beside its samples: machine, versions, commit, time; and how it is written.

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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
_LIBRARIES = ("miniml", "ray", "onnxruntime", "tokenizers", "locust")


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: always a value that was seen. Raises ValueError on no values."""
    if not values:
        raise ValueError("no values, so no percentile")
    ordered = sorted(values)
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def now() -> str:
    """The time in UTC, as records tell it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def write_document(document: Mapping[str, Any], path: Path) -> Path:
    """All of *document* at *path*, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return part.replace(path)


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
    """A new file under miniml's home, named by the time in UTC."""
    return records_folder() / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{scenario}.json"


def records_folder() -> Path:
    """Where records go.

    The home is read here and not from `registry`, which benchmarks do not import: they see a
    server only from outside.
    """
    return Path(os.environ.get("MINIML_HOME") or ".miniml").absolute() / "bench"


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
