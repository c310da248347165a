"""Bytes of sealed folders to and from where versions lie; nothing is trusted before it is verified.

A place is a path of this machine (or file://), an object store that fsspec knows (s3://, with
AWS_ENDPOINT_URL respected), or an artifact URI that only MLflow can reach. Copies and downloads are
staged beside their target, verified against the digest asked for, and renamed.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from registry.artifact import (
    MANIFEST,
    SIGNATURE,
    STAGING_SUFFIX,
    Kind,
    Manifest,
    files_to_copy,
    read_manifest,
    verify,
)
from registry.errors import CorruptArtifact, NotFound, StoreUnavailable
from registry.home import home
from registry.progress import moving

_log = logging.getLogger(__name__)


def local_path(uri: str) -> Path | None:
    """The path that *uri* means on this machine; None when it lies elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(uri)


def verified(folder: Path, *, kind: Kind, digest: str) -> Path:
    """*folder*, every byte of which is what *digest* names. Raises `CorruptArtifact`, `NotFound`."""
    found = verify(folder, kind=kind).digest
    if found != digest:
        raise CorruptArtifact(f"{folder} holds {found[:12]}, but {digest[:12]} was published here.")
    return folder


def copy_in(source: Path, target: Path, manifest: Manifest) -> None:
    """Copy a sealed folder to *target*, which appears only when all its bytes are there and right.

    A hard link would cost nothing, but then a later change of the source would change the version.
    """
    with _staging(target) as staging:
        for name in files_to_copy(source, manifest):
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        verified(staging, kind=manifest.kind, digest=manifest.digest)
        staging.rename(target)


def cache_folder(digest: str) -> Path:
    """Where the local copy of what *digest* names is, or would be."""
    return home() / "cache" / digest


def cached(digest: str, *, kind: Kind, download: Callable[[Path], Path]) -> Path:
    """The verified local copy of what *digest* names, downloaded when it is not there yet.

    *download* fills the empty folder it is given and returns where in it the artifact lies. Several
    processes may do this at once: each downloads for itself, and equal bytes make it harmless.
    """
    target = cache_folder(digest)
    try:
        return verified(target, kind=kind, digest=digest)
    except NotFound:
        pass
    except CorruptArtifact as error:
        _log.info("Downloading again: %s", error)
        shutil.rmtree(target)
    with _staging(target) as staging:
        folder = verified(download(staging), kind=kind, digest=digest)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
    return target


def download_verified(digest: str, *, kind: Kind, download: Callable[[Path], Path]) -> None:
    """Download what *digest* names, verify it, and drop it: a proof, whatever the cache holds."""
    with _staging(cache_folder(digest)) as staging:
        verified(download(staging), kind=kind, digest=digest)


def read_object_manifest(uri: str) -> Manifest:
    """The manifest of a sealed folder in an object store. Raises `NotFound`, `StoreUnavailable`."""
    with tempfile.TemporaryDirectory() as folder:
        with _objects(uri) as files:
            files.get_file(f"{uri}/{MANIFEST}", str(Path(folder) / MANIFEST))
        return read_fetched_manifest(Path(folder), uri)


def read_fetched_manifest(folder: Path, uri: str) -> Manifest:
    """The manifest that came from *uri* into *folder*. Raises `CorruptArtifact`, naming *uri*."""
    try:
        return read_manifest(folder)
    except CorruptArtifact as error:
        message = f"{uri}/{MANIFEST} cannot be read; publish the artifact again."
        raise CorruptArtifact(message) from error


def inside(folder: Path, name: str, uri: str) -> Path:
    """Where *name* of the manifest at *uri* goes in *folder*. Raises `CorruptArtifact` if nowhere."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise CorruptArtifact(f"{uri}: {name!r} would be written out of the folder.")
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def download_objects(uri: str, folder: Path) -> Path:
    """Fill *folder* with the sealed folder at *uri*: what its manifest lists, and its signature."""
    manifest = read_object_manifest(uri)
    _log.info("Downloading %s (%.0f MB)", uri, manifest.total_bytes / 1e6)
    told = f"Downloading {manifest.kind}"
    with _objects(uri) as files, moving(told, manifest.total_bytes) as moved:
        for name in (*manifest.files, MANIFEST):
            path = inside(folder, name, uri)
            files.get_file(f"{uri}/{name}", str(path))
            moved(path.stat().st_size)
        # Without the right to list, S3 forbids what is not there. No signature is never a good one.
        with suppress(FileNotFoundError, PermissionError):
            files.get_file(f"{uri}/{SIGNATURE}", str(folder / SIGNATURE))
    return folder


def upload_objects(source: Path, uri: str, manifest: Manifest) -> None:
    """Put a sealed folder to *uri*, manifest last, so that a broken upload is no artifact."""
    told = f"Uploading {manifest.kind}"
    with _objects(uri) as files, moving(told, manifest.total_bytes) as moved:
        for name in files_to_copy(source, manifest):
            files.put_file(str(source / name), f"{uri}/{name}")
            moved((source / name).stat().st_size)


def remove_objects(uri: str) -> None:
    """Remove all below *uri*; there may be nothing any more."""
    with suppress(NotFound), _objects(uri) as files:
        files.rm(uri, recursive=True)


def require_bucket(uri: str) -> None:
    """Raise `NotFound` or `StoreUnavailable` unless the bucket of *uri* can be listed there."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        with _objects(uri) as files:
            files.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=1)
    except NotFound as error:
        raise NotFound(f"There is no bucket {bucket!r}; make it, or choose another.") from error


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty folder beside *target*, gone afterwards unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=STAGING_SUFFIX, dir=target.parent)
    )
    folder.chmod(0o755)  # mkdtemp's 0700 would shut out the account that serves
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _objects(uri: str) -> Iterator[Any]:
    """An fsspec file system for *uri*; its errors come out as ours."""
    import fsspec
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # No instance cache: credentials and endpoint may change, and listings must be fresh.
        yield fsspec.filesystem(urlsplit(uri).scheme, skip_instance_cache=True)
    except FileNotFoundError as error:
        raise NotFound(f"{uri} does not exist or holds no {MANIFEST}.") from error
    except (PermissionError, BotoCoreError, ClientError) as error:
        raise StoreUnavailable(
            f"{uri} cannot be reached ({error}); check the credentials and AWS_ENDPOINT_URL."
        ) from error
