"""Bytes of a run to its place, from it and out of it, whichever way leads there.

A place is a path of this machine, an object store, a server's proxy, or what only MLflow's client can
reach. `registry.backend` says where a run's place is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.artifact import Manifest
from registry.backend import PROXIED, Backend, Run
from registry.connection import translated, without_password
from registry.errors import StoreUnavailable
from registry.proxied import download_proxied, remove_proxied, upload_proxied
from registry.transfer import (
    copy_in,
    download_objects,
    local_path,
    remove_objects,
    upload_objects,
)
from registry.version import Version

_OBJECTS = "s3://"


def bring(backend: Backend, run: Run, folder: Path, manifest: Manifest) -> None:
    """Copy a sealed folder to the run's place, all of it, before anything names it there."""
    place = f"{run.artifact_uri}/{manifest.kind}"
    if (target := local_path(place)) is not None:
        copy_in(folder, target, manifest)
    elif place.startswith(_OBJECTS):
        upload_objects(folder, place, manifest)
    else:
        if place.startswith(PROXIED):
            upload_proxied(folder, place, backend.uri, manifest)
        else:
            with translated(backend.uri):
                backend.client.log_artifacts(run.run_id, str(folder), manifest.kind)
        _require_arrived(backend, place, manifest)


def take(backend: Backend, version: Version, folder: Path) -> Path:
    """The artifact of a version, below *folder*; nothing is verified here."""
    if version.uri.startswith(_OBJECTS):
        return download_objects(version.uri, folder)
    if version.uri.startswith(PROXIED):
        return download_proxied(version.uri, backend.uri, folder, _sizes(backend, version.uri))
    with translated(backend.uri):
        client = backend.client
        return Path(client.download_artifacts(version.run_id, version.kind, str(folder)))


def drop(backend: Backend, place: str) -> None:
    """Forget all that lies at *place*, which is not on this machine, and may be gone already."""
    if place.startswith(_OBJECTS):
        remove_objects(place)
    elif place.startswith(PROXIED):
        remove_proxied(place, backend.uri)
    else:
        with translated(backend.uri):
            _repository(backend, place).delete_artifacts()


def _require_arrived(backend: Backend, place: str, manifest: Manifest) -> None:
    arrived = _sizes(backend, place)
    for name, entry in manifest.files.items():
        if arrived.get(name) != entry.bytes:
            raise StoreUnavailable(
                f"{name} did not arrive whole at {without_password(backend.uri)}; publish again."
            )


def _sizes(backend: Backend, place: str) -> dict[str, int]:
    """What lies below *place*: name -> bytes."""
    with translated(backend.uri):
        return dict(_walk(_repository(backend, place), None))


def _walk(repository: Any, path: str | None) -> Iterator[tuple[str, int]]:
    for entry in repository.list_artifacts(path):
        if entry.is_dir:
            yield from _walk(repository, entry.path)
        else:
            yield entry.path, entry.file_size


def _repository(backend: Backend, place: str) -> Any:
    """MLflow's way to *place*."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(place, tracking_uri=backend.uri)
