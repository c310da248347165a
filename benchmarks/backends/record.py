"""What `bench backends` leaves: every sample of every round; rates, shares and tables follow.

`document` is the record: `variants` and why some are missing, `answers` against fp32, `runs` with
all samples, `peaks` of the hardware, `weights` of each workload, and `speeds`, which are derived.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Group

from benchmarks.backends.measures import (
    AnswerAgreement,
    Weights,
    ceiling_texts_per_s,
    roofs,
)
from benchmarks.backends.speeds import GridRun, VariantSpeed, fastest, speeds
from benchmarks.backends.tables import backends_tables
from benchmarks.backends.variant import Variant
from benchmarks.geometry import Geometry
from benchmarks.peers.runs import PeerRun
from benchmarks.record import SCHEMA_VERSION, commit, machine, versions

_PLAIN = (
    *("missing", "http_missing", "peaks", "scenario", "package_digest", "precision", "machine"),
    *("versions", "commit", "recorded_at", "schema_version", "package"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsRecord:
    """variants: all, also those that could not run. missing, http_missing: name -> why.

    answers: name -> how they agree with fp32's. weights: workload -> length -> share of the texts.
    peaks: as `peaks` measured. http_runs: closed loops over HTTP, when they were asked for.
    package: what `about_package` says of the first.
    """

    variants: Sequence[Variant]
    missing: Mapping[str, str]
    answers: Mapping[str, AnswerAgreement]
    runs: Sequence[GridRun]
    weights: Mapping[str, Weights]
    batches: Sequence[int]
    geometry: Geometry
    peaks: Mapping[str, Any]
    scenario: Mapping[str, Any]
    package_digest: str
    precision: str
    http_runs: Sequence[PeerRun] = ()
    http_missing: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=lambda: {**versions(), **_libraries()})
    commit: str = field(default_factory=commit)
    recorded_at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    package: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def speeds(self, workload: str) -> list[VariantSpeed]:
        """Of every variant that ran, on every layout."""
        return speeds(self.runs, workload, self.weights[workload], self.batches)

    def fastest(self, workload: str) -> dict[str, VariantSpeed]:
        """Variant -> its speed on its best layout."""
        return fastest(self.speeds(workload))

    def ceiling(self, variant: Variant, workload: str, batch: int) -> float | None:
        """Texts/s that the hardware would allow; None where its peak was not measured."""
        peak = self.peaks.get("gpu" if variant.on_gpu else "cpu")
        roof = roofs(peak).get(variant.precision) if peak else None
        if roof is None:
            return None
        return ceiling_texts_per_s(self.geometry, self.weights[workload], roof, batch=batch)

    def peak_rss_bytes(self, variant: str) -> int | None:
        """The most memory its process took."""
        return max(
            (run.peak_rss_bytes for run in self.runs if run.variant == variant), default=None
        )

    def document(self) -> dict[str, object]:
        """Every sample, and what is derived from them."""
        return {
            "kind": "backends",
            **{name: getattr(self, name) for name in _PLAIN},
            "variants": [_variant(variant) for variant in self.variants],
            "answers": {name: asdict(found) for name, found in self.answers.items()},
            "weights": {name: list(weights.items()) for name, weights in self.weights.items()},
            "batches": list(self.batches),
            "geometry": asdict(self.geometry),
            "runs": [run.document() for run in self.runs],
            "http_runs": [run.document() for run in self.http_runs],
            "speeds": [self._speed(one) for name in self.weights for one in self.speeds(name)],
        }

    def write(self, path: Path) -> Path:
        """All of the record at *path*, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.document()) + "\n", encoding="utf-8")
        return part.replace(path)

    def __rich__(self) -> Group:
        """What runs here and how it answers, then how fast it is."""
        return backends_tables(self)

    def _speed(self, one: VariantSpeed) -> dict[str, Any]:
        variant = next(v for v in self.variants if v.name == one.variant)
        ceiling = self.ceiling(variant, one.workload, one.batch)
        return {
            **asdict(one),
            "texts_per_s": round(one.rate, 2),
            "ceiling_texts_per_s": None if ceiling is None else round(ceiling, 2),
            "best_layout": self.fastest(one.workload)[one.variant].layout == one.layout,
        }


def _libraries() -> dict[str, str]:
    """Versions of what runs the backends, as far as it is installed."""
    names = ("torch", "transformers", "openvino", "onnxruntime-gpu", "optimum-onnx")
    installed = {dist.metadata["Name"].lower(): dist.version for dist in distributions()}
    return {name: installed[name] for name in names if name in installed}


def _variant(variant: Variant) -> dict[str, Any]:
    """Without paths: they mean nothing elsewhere."""
    return {
        "name": variant.name,
        "backend": variant.backend,
        "precision": variant.precision,
        "note": variant.note,
        "options": dict(variant.options),
    }
