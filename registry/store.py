"""The hub of datasets, checkpoints and packages: publish, resolve, fetch, alias, list, verify, gc.

A reference is resolved once, to an immutable version; whoever needs the bytes fetches exactly that
version, verified. MLflow keeps runs, numbers, aliases and tags (`registry.backend`), sealed folders
keep the bytes (`registry.transfer`). Importing this module costs nothing; calling it may import
MLflow, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.tree import Tree

from registry.artifact import MANIFEST, Kind, Manifest, read_manifest
from registry.backend import Backend, connect, connect_to_read
from registry.errors import BadReference, CorruptArtifact, NotFound, RegistryError
from registry.gc import GcResult, gc
from registry.hub import serve, ui
from registry.lineage import ancestors, lineage_of
from registry.places import take
from registry.publishing import publish
from registry.reference import (
    LatestReference,
    NameReference,
    ObjectReference,
    PathReference,
    check_alias,
    check_name,
    parse,
)
from registry.transfer import (
    cache_folder,
    cached,
    download_objects,
    download_verified,
    local_path,
    read_object_manifest,
    verified,
)
from registry.version import Version, newest_of_name, versions_table

__all__ = [
    "GcResult",
    "Version",
    "fetch",
    "find",
    "gc",
    "kept",
    "lineage",
    "lineage_tree",
    "list_versions",
    "publish",
    "resolve",
    "serve",
    "set_alias",
    "ui",
    "verify_version",
    "versions_table",
]

_SHOWN = 10  # how many of what exists a message lists


def resolve(reference: str, *, kind: Kind) -> Version:
    """The immutable version that *reference* means now.

    A folder or s3:// prefix gives number 0 and its manifest's digest; no byte is hashed before
    `fetch`. Raises `BadReference`, `NotFound` (with what there is), `CorruptArtifact` for a folder
    of another kind, `StoreUnavailable`.
    """
    parsed = parse(reference)
    match parsed:
        case PathReference(path=path):
            folder = Path(path).expanduser().absolute()
            return _unpublished(str(folder), read_manifest(folder), kind)
        case ObjectReference(uri=uri):
            return _unpublished(uri, read_object_manifest(uri), kind)
        case LatestReference():
            if versions := list_versions(kind=kind):
                return versions[0]
            raise NotFound(f"No {kind} is published yet.")
        case NameReference():
            return _named(parsed, kind)


def fetch(version: Version) -> Path:
    """A local folder whose every byte is what `version.digest` names.

    What lies on this machine is verified in place; the rest is downloaded once to
    `home()/cache/<digest>`. Raises `CorruptArtifact`, `NotFound`, `StoreUnavailable`.
    """
    if (folder := local_path(version.uri)) is not None:
        return verified(folder, kind=version.kind, digest=version.digest)
    return cached(version.digest, kind=version.kind, download=partial(_download, version))


def kept(digest: str, *, kind: Kind) -> Path | None:
    """The verified copy that an earlier `fetch` left of what *digest* names; no registry is asked."""
    try:
        return verified(cache_folder(digest), kind=kind, digest=digest)
    except (NotFound, CorruptArtifact):
        return None


def verify_version(reference: str, *, kind: Kind) -> Version:
    """The version of *reference*, all of whose bytes were hashed where they lie.

    A cached copy proves nothing about the place it came from, so elsewhere means a download.
    """
    version = resolve(reference, kind=kind)
    if local_path(version.uri) is None:
        download_verified(version.digest, kind=kind, download=partial(_download, version))
    else:
        fetch(version)
    return version


def find(*, kind: Kind, name: str, recipe: str) -> Version | None:
    """The newest version published with exactly that *recipe*; None for an empty one.

    On this machine its folder must also still be there, or reusing it would fail later.
    """
    check_name(name)
    for version in newest_of_name(list_versions(kind=kind, name=name)):
        if recipe and version.recipe == recipe and _is_there(version):
            return version
    return None


def list_versions(kind: Kind | None = None, name: str | None = None) -> list[Version]:
    """All complete versions, newest first."""
    if name is not None:
        check_name(name)
    backend = connect_to_read()
    return [] if backend is None else backend.versions(kind=kind, name=name)


def set_alias(reference: str, alias: str, *, kind: Kind) -> Version:
    """The version of *reference*, at which *alias* now points and at no other of its name."""
    check_alias(alias)
    version = resolve(reference, kind=kind)
    if not version.number:
        raise BadReference(f"{reference} was never published, so it can have no alias.")
    return connect().set_alias(version, alias)


def lineage(version: Version) -> list[Version]:
    """*version*, its checkpoint, its dataset: as far back as the registry knows them."""
    return ancestors(version, list_versions())


def lineage_tree(version: Version) -> Tree:
    """The same as a tree for people, down to base model and source."""
    return lineage_of(lineage(version))


def _unpublished(uri: str, manifest: Manifest, kind: Kind) -> Version:
    if manifest.kind != kind:
        raise CorruptArtifact(f"{uri} holds a {manifest.kind}, but a {kind} is needed here.")
    folder = local_path(uri)
    written = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC) if folder else None
    return Version(
        kind=kind,
        name=uri.rpartition("/")[2],
        number=0,
        digest=manifest.digest,
        uri=uri,
        run_id="",
        created_at=written.isoformat(timespec="milliseconds") if written else "",
        aliases=(),
        lineage=manifest.lineage,
        metrics={},
        recipe="",
    )


def _named(reference: NameReference, kind: Kind) -> Version:
    if reference.kind not in (None, kind):
        raise BadReference(f"{reference} names a {reference.kind}, but a {kind} is needed here.")
    backend = connect_to_read()
    if backend is None:
        raise NotFound(f"No {kind} is published yet, so there is no {reference}.")
    if reference.number:
        version = backend.version(kind=kind, name=reference.name, number=reference.number)
        if version is not None:
            return version
    versions = newest_of_name(backend.versions(kind=kind, name=reference.name))
    if reference.number is None:
        for version in versions:
            if reference.alias is None or reference.alias in version.aliases:
                return version
    raise NotFound(_what_there_is(backend, reference, kind, versions))


def _what_there_is(
    backend: Backend, reference: NameReference, kind: Kind, versions: list[Version]
) -> str:
    """Why *reference* was not found, and what could be written instead."""
    if not versions:
        names = _some(sorted({version.name for version in backend.versions(kind=kind)}))
        folder = Path(reference.name)
        hint = f" For the folder, write ./{folder}." if folder.is_dir() else ""
        return f"No {kind} named {reference.name!r}; there are: {names}.{hint}"
    if reference.alias:
        aliases = _some(sorted({alias for version in versions for alias in version.aliases}))
        return f"No {kind} {reference}; aliases of {reference.name} are: {aliases}, latest."
    numbers = _some(version.reference for version in versions)
    return f"No {kind} {reference}; there are: {numbers}."


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) or "none") + more


def _download(version: Version, target: Path) -> Path:
    if version.uri.startswith("s3://"):  # a place that may stand in no registry
        return download_objects(version.uri, target)
    return take(connect(), version, target)


def _is_there(version: Version) -> bool:
    folder = local_path(version.uri)
    try:
        return folder is None or read_manifest(folder).digest == version.digest
    except RegistryError:
        return False
