"""Publishing: one sealed folder becomes one run and one version, or nothing that anybody can see.

The order is the guarantee: run, bytes (staged, verified, renamed), version, seal, alias. Whoever
dies on the way leaves a run without a version, or a version without a seal; `registry.gc` sweeps
both, and publishing again starts afresh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from registry.artifact import verify
from registry.backend import Backend, Run, connect
from registry.errors import RegistryError
from registry.places import bring
from registry.reference import check_alias, check_name
from registry.version import Version

_log = logging.getLogger(__name__)


def publish(  # noqa: PLR0913  # one noun a version is made of, each with a default
    folder: Path,
    *,
    name: str,
    recipe: str = "",
    params: Mapping[str, object] | None = None,
    metrics: Mapping[str, float] | None = None,
    curves: Sequence[tuple[str, int, float]] = (),
    alias: str | None = None,
) -> Version:
    """The new version of *name* that holds a copy of the sealed *folder*.

    recipe: hex digest of all that determines the artifact, for `find`. curves: (metric, step,
    value). Kind and lineage are the manifest's. Each publisher gets a number of its own, however
    many publish at once. Raises `BadReference` for the name or alias, `CorruptArtifact` or
    `NotFound` for the folder, `StoreUnavailable`.
    """
    check_name(name)
    if alias is not None:
        check_alias(alias)
    manifest = verify(folder)
    backend = connect()
    run = backend.start_run(name=name, recipe=recipe, manifest=manifest)
    with _failing(backend, run):
        backend.log(run, params=params or {}, metrics=metrics or {}, curves=curves)
        bring(backend, run, folder, manifest)
        number = backend.register(
            run, name=name, recipe=recipe, manifest=manifest, metrics=metrics or {}
        )
    backend.end_run(run, status="FINISHED")
    version = backend.version(kind=manifest.kind, name=name, number=number)
    assert version is not None, f"{name}/{number} was sealed and is gone; this is a bug"
    if alias is not None:
        version = backend.set_alias(version, alias)
    _log.info("Published %s %s (%s)", version.kind, version.reference, version.digest[:12])
    return version


@contextmanager
def _failing(backend: Backend, run: Run) -> Iterator[None]:
    """Mark the run FAILED when publishing does not get through; `registry.gc` removes what it brought."""
    try:
        yield
    except BaseException:
        with suppress(RegistryError, OSError):  # the first error is the one to tell
            backend.end_run(run, status="FAILED")
        raise
