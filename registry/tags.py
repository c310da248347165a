"""How a version is written in MLflow's tags, and read back. Pure.

Metrics stand in a tag too, so that listing versions needs no look at each run.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from registry.artifact import Manifest
from registry.version import Version

KIND, NAME, DIGEST, RECIPE = "miniml.kind", "miniml.name", "miniml.digest", "miniml.recipe"
METRICS, SEALED, LINEAGE = "miniml.metrics", "miniml.sealed", "miniml.lineage."
_KEY_CHARS = 250  # what MLflow takes
_NOT_IN_A_KEY = re.compile(r"[^\w.\-: /]")


def to_tags(*, name: str, recipe: str, manifest: Manifest) -> dict[str, str]:
    """Tags of a run and of its version, all but `METRICS` and `SEALED`."""
    lineage = {LINEAGE + key: value for key, value in manifest.lineage.items()}
    return {KIND: manifest.kind, NAME: name, DIGEST: manifest.digest, RECIPE: recipe} | lineage


def metrics_tag(metrics: Mapping[str, float]) -> str:
    """JSON of the finite ones: JSON has no word for the others."""
    return json.dumps({key: float(value) for key, value in metrics.items() if math.isfinite(value)})


def to_key(text: str) -> str:
    """*text* as MLflow takes it for a metric or a param: a label may hold any character."""
    clean = _NOT_IN_A_KEY.sub("_", text)[:_KEY_CHARS]
    return posixpath.normpath(f"/{clean}").lstrip("/") or "_"  # it must read as a relative path


def is_sealed(raw: Any) -> bool:
    """Whether MLflow's record of a version was finished."""
    return DIGEST in raw.tags and raw.tags.get(SEALED) == raw.tags[DIGEST]


def to_version(raw: Any, *, aliases: Mapping[str, str], uri: str) -> Version:
    """MLflow's record of a sealed version as ours. aliases: alias -> number, of its name."""
    tags: Mapping[str, Any] = raw.tags
    number = int(raw.version)
    created = datetime.fromtimestamp(raw.creation_timestamp / 1000, UTC)
    return Version(
        kind=tags[KIND],
        name=tags[NAME],
        number=number,
        digest=tags[DIGEST],
        uri=uri,
        run_id=raw.run_id,
        created_at=created.isoformat(timespec="milliseconds"),
        aliases=tuple(sorted(alias for alias, at in aliases.items() if int(at) == number)),
        lineage={
            key.removeprefix(LINEAGE): value
            for key, value in sorted(tags.items())
            if key.startswith(LINEAGE)
        },
        metrics=json.loads(tags.get(METRICS, "{}")),
        recipe=tags.get(RECIPE, ""),
    )
