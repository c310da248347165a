"""A sealed folder: every artifact that crosses a wall (dataset, checkpoint, model package).

The manifest is written last and names every file with its sha256 and size, so its presence proves
that the folder is complete and its digest names the content. Folders are staged beside their target
and renamed: a reader sees all of an artifact or nothing. This module does not know what is inside.

One file may lie in a sealed folder without being listed: `model.sig`, a detached signature over all
the others. No two signatures of the same bytes are equal, so the digest must not cover it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from registry.errors import ArtifactExists, CorruptArtifact, NotFound

Kind = Literal["dataset", "checkpoint", "package"]
MANIFEST, SIGNATURE = "manifest.json", "model.sig"
SCHEMA_VERSION = 1
STAGING_SUFFIX = ".staging"
_UNLISTED = {MANIFEST, SIGNATURE}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What the manifest says of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Content of `manifest.json`.

    files: posix path relative to the folder -> entry; neither manifest nor signature is listed.
    lineage: input name -> reference or digest of what this artifact was made from.
    """

    kind: Kind
    files: Mapping[str, FileEntry]
    lineage: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests give equal bytes on every machine."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "lineage": dict(self.lineage),
            "files": {
                name: {"sha256": entry.sha256, "bytes": entry.bytes}
                for name, entry in self.files.items()
            },
        }
        return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"

    @property
    def digest(self) -> str:
        """sha256 of the canonical bytes (hex, 64 digits): the artifact's name for ever."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of all listed files."""
        return sum(entry.bytes for entry in self.files.values())


@contextmanager
def staged(target: Path, *, kind: Kind, lineage: Mapping[str, str]) -> Iterator[Path]:
    """Yield an empty folder beside *target*; on a clean exit seal it and rename it to *target*.

    On an exception nothing is left. Raises `ArtifactExists` when *target* is there already.
    """
    target = target.absolute()
    if target.exists():
        raise ArtifactExists(f"{target} already exists; remove it or choose another output.")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=STAGING_SUFFIX, dir=target.parent)
    )
    try:
        yield folder
        seal(folder, kind=kind, lineage=lineage)
        try:
            folder.rename(target)
        except OSError as error:
            if target.exists():
                raise ArtifactExists(f"{target} was written by someone else meanwhile.") from error
            raise
        _fsync(target.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def seal(folder: Path, *, kind: Kind, lineage: Mapping[str, str]) -> Manifest:
    """Flush every file, then write the manifest last; from here on the folder verifies."""
    files = {}
    for name in _list_files(folder):
        if name in _UNLISTED:
            continue
        path = folder / name
        path.chmod(0o644)
        _fsync(path)
        files[name] = FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)
    folder.chmod(0o755)
    manifest = Manifest(kind=kind, files=files, lineage=dict(lineage))
    part = folder / (MANIFEST + ".part")
    part.write_bytes(manifest.to_bytes())
    _fsync(part)
    part.replace(folder / MANIFEST)
    _fsync(folder)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, no file hashed. Raises `NotFound` or `CorruptArtifact`."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder.")
    path = folder / MANIFEST
    if not path.is_file():
        raise CorruptArtifact(f"{folder} has no {MANIFEST}: not an artifact, or not finished.")
    try:
        written = path.read_bytes()
        manifest = _parse(json.loads(written))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptArtifact(
            f"{path} cannot be read ({error}); fetch the artifact again."
        ) from error
    if manifest.to_bytes() != written:  # what the digest does not cover could be changed unseen
        raise CorruptArtifact(f"{path} was changed; fetch the artifact again.")
    return manifest


def verify(folder: Path, *, kind: Kind | None = None) -> Manifest:
    """Hash every file against the manifest.

    Raises `CorruptArtifact` with the file's name for a changed, missing or extra file, and when the
    artifact is not of the *kind* asked for.
    """
    manifest = read_manifest(folder)
    if kind is not None and manifest.kind != kind:
        raise CorruptArtifact(f"{folder} holds a {manifest.kind}, but a {kind} is needed here.")
    present = set(_list_files(folder)) - _UNLISTED
    for name in sorted(set(manifest.files) - present):
        raise CorruptArtifact(f"{folder}: {name} is missing; fetch the artifact again.")
    for name in sorted(present - set(manifest.files)):
        raise CorruptArtifact(f"{folder}: {name} is not in the manifest; remove it.")
    for name, entry in manifest.files.items():
        path = folder / name
        if path.stat().st_size != entry.bytes or file_sha256(path) != entry.sha256:
            raise CorruptArtifact(f"{folder}: {name} was changed; fetch the artifact again.")
    return manifest


def files_to_copy(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """What makes a whole copy of *folder*: listed files, signature if it has one, manifest last."""
    signature = (SIGNATURE,) if (folder / SIGNATURE).is_file() else ()
    return (*manifest.files, *signature, MANIFEST)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(document: Any) -> Manifest:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {document['schema_version']}, not {SCHEMA_VERSION}")
    if document["kind"] not in ("dataset", "checkpoint", "package"):
        raise ValueError(f"unknown kind {document['kind']!r}")
    files = {
        name: FileEntry(sha256=str(entry["sha256"]), bytes=int(entry["bytes"]))
        for name, entry in document["files"].items()
    }
    return Manifest(kind=document["kind"], files=files, lineage=dict(document["lineage"]))


def _list_files(folder: Path) -> list[str]:
    """Posix paths of all regular files; a link could point out of the folder, so it is refused."""
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise CorruptArtifact(f"{path} is a link; artifacts hold plain files only.")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif not path.is_dir():
            raise CorruptArtifact(f"{path} is a device; artifacts hold plain files only.")
    return names


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
