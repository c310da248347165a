"""What every stage does with the artifact it makes: build it in a staging folder, seal, register.

Until the last rename nothing that another stage would accept exists; a killed stage leaves a
staging folder that `gc` removes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from registry.artifact import Kind, staged, verify
from registry.errors import ArtifactExists
from registry.home import work_folder
from registry.publishing import publish
from registry.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the run that made an artifact is remembered by. curves: (metric, step, value)."""

    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[tuple[str, int, float]] = ()


def recipe_digest(parts: Mapping[str, object]) -> str:
    """Hex sha256 of everything that determines an artifact; equal parts, equal digest."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def produce(  # noqa: PLR0913 - what an artifact is known by, each named at the call
    build: Callable[[Path], Facts],
    *,
    kind: Kind,
    name: str,
    recipe: str,
    lineage: Mapping[str, str],
    output: Path | None = None,
    sealed: Callable[[Path], object] | None = None,
) -> Version:
    """Let *build* fill an empty folder, seal it, register it as *name*, and copy it to *output*.

    sealed: called with the sealed folder before anybody else sees it, to sign it.
    Raises `ArtifactExists` before any work when *output* is there already, and what *build* raises.
    """
    if output is not None and output.exists():
        raise ArtifactExists(f"{output} already exists; remove it or choose another --output.")
    place = Path(tempfile.mkdtemp(dir=work_folder("sealed", kind)))
    try:
        made = place / name
        with staged(made, kind=kind, lineage=lineage) as folder:
            facts = build(folder)
        if sealed is not None:
            sealed(made)
        version = publish(
            made,
            name=name,
            recipe=recipe,
            params=facts.params,
            metrics=facts.metrics,
            curves=facts.curves,
        )
        if output is not None:
            copy_sealed(made, output)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return version


def copy_sealed(folder: Path, target: Path) -> None:
    """A verified copy of a sealed folder at *target*, all of it or nothing."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".staging", dir=target.parent))
    try:
        copy = place / target.name
        shutil.copytree(folder, copy)
        verify(copy)
        copy.rename(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
