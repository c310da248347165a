"""What may be forgotten: old versions, and the leavings of work that was cut short.

Deciding is pure (`doomed`), removing is `gc`. The sweep touches only what nobody has written to for
a day, so it may run beside anything.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from registry.artifact import STAGING_SUFFIX
from registry.backend import Backend, Run, connect_to_read
from registry.errors import BadReference
from registry.home import home
from registry.places import drop
from registry.reference import registered_name
from registry.transfer import local_path
from registry.version import Version, newest_first, newest_of_name, versions_table

STALE_S = 24 * 3600
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcResult:
    """What was removed, or with dry_run what would be.

    folders: stale staging and work folders, and places of publishing that never finished.
    freed_bytes: on this machine; what lies elsewhere is not counted.
    """

    removed: tuple[Version, ...]
    folders: tuple[str, ...]
    freed_bytes: int
    kept_versions: int
    dry_run: bool

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "dry_run": self.dry_run,
            "removed": [version.document() for version in self.removed],
            "folders": list(self.folders),
            "freed_bytes": self.freed_bytes,
            "kept_versions": self.kept_versions,
        }

    def __rich__(self) -> RenderableType:
        verb = "Would remove" if self.dry_run else "Removed"
        summary = (
            f"{verb} {len(self.removed)} version(s) and {len(self.folders)} stale folder(s), "
            f"{self.freed_bytes / 1e6:.1f} MB; {self.kept_versions} version(s) stay."
        )
        return Group(versions_table(self.removed), summary) if self.removed else summary


def gc(*, keep: int = 3, dry_run: bool = False) -> GcResult:
    """Remove versions that nothing needs (see `doomed`), their bytes, and stale leavings.

    On a server, bytes are removed through it. Raises `NotAllowed` to who may only publish there.
    """
    if keep < 1:
        raise BadReference(f"keep is {keep}, but the newest version of a name always stays.")
    backend = connect_to_read()
    versions: list[Version] = []
    removed: list[Version] = []
    leavings: list[Run] = []
    if backend is not None:
        with backend.writing():  # no alias may be set between the decision and the removal
            versions = backend.versions()
            removed = doomed(versions, keep=keep)
            leavings = _leavings(backend, versions)
            if not dry_run:
                _forget(backend, removed, leavings)
    folders = stale_folders(home())
    if backend is not None and backend.root is not None:
        folders += _orphans(backend.root, versions)
    here = [path.parents[1] for version in removed if (path := local_path(version.uri))]
    away = [version.uri.rpartition("/")[0] for version in removed if not local_path(version.uri)]
    left = [run.artifact_uri for run in leavings if not local_path(run.artifact_uri)]
    freed_bytes = sum(size_bytes(folder) for folder in (*here, *folders))
    if not dry_run:  # after the records: no version without bytes
        for folder in (*here, *folders):
            remove_folder(folder)
        for place in (*away, *left):
            assert backend is not None, f"{place} is of no registry; this is a bug"
            drop(backend, place)
    return GcResult(
        removed=tuple(removed),
        folders=tuple(map(str, (*folders, *left))),
        freed_bytes=freed_bytes,
        kept_versions=len(versions) - len(removed),
        dry_run=dry_run,
    )


def _forget(backend: Backend, removed: Iterable[Version], leavings: Iterable[Run]) -> None:
    """Remove records: of *removed*, of versions never sealed by a publisher dead for a day, of runs."""
    for version in removed:
        backend.remove(registered_name(version.kind, version.name), version.number, version.run_id)
    for raw in backend.unsealed():
        if raw.creation_timestamp < _stale_ms():
            backend.remove(raw.name, int(raw.version), raw.run_id)
    for run in leavings:
        backend.remove_run(run.run_id)


def _leavings(backend: Backend, versions: Iterable[Version]) -> list[Run]:
    """Runs begun more than a day ago that never became a version; their bytes may lie anywhere."""
    owned = {version.run_id for version in versions}
    return [run for run in backend.runs(before_ms=_stale_ms()) if run.run_id not in owned]


def _stale_ms() -> float:
    return (time.time() - STALE_S) * 1000


def _orphans(root: Path, versions: Iterable[Version]) -> list[Path]:
    """Folders of runs that never became a version, untouched for a day.

    A run's folder lies in *root*, or one deeper when a server put it there.
    """
    owned = {version.run_id for version in versions}
    runs = (path for pattern in ("*", "*/*") for path in root.glob(pattern))
    return sorted(
        path
        for path in runs
        if _RUN_ID.fullmatch(path.name) and path.name not in owned and is_stale(path)
    )


def doomed(versions: Iterable[Version], *, keep: int) -> list[Version]:
    """Versions that nothing needs, newest first.

    Kept are: what has an alias, the newest *keep* of each name and kind, and everything that a
    kept version was made from, however far back.
    """
    versions = newest_first(versions)
    by_digest: defaultdict[str, list[Version]] = defaultdict(list)
    by_name: defaultdict[tuple[str, str], list[Version]] = defaultdict(list)
    for version in versions:
        by_digest[version.digest].append(version)
        by_name[version.kind, version.name].append(version)
    needed = [version for version in versions if version.aliases]
    for same_name in by_name.values():
        needed += newest_of_name(same_name)[:keep]
    kept = set()
    while needed:
        version = needed.pop()
        if (key := (version.kind, version.reference)) not in kept:
            kept.add(key)
            needed.extend(
                parent for value in version.lineage.values() for parent in by_digest.get(value, ())
            )
    return [version for version in versions if (version.kind, version.reference) not in kept]


def stale_folders(root: Path) -> list[Path]:
    """Staging folders anywhere below *root*, and work folders, all untouched for a day."""
    candidates = list(root.glob("work/*/*"))
    for parent, names, _ in os.walk(root):
        for name in [name for name in names if name.endswith(STAGING_SUFFIX)]:
            names.remove(name)  # os.walk then does not go into it
            candidates.append(Path(parent, name))
    return sorted(folder for folder in set(candidates) if is_stale(folder))


def is_stale(folder: Path) -> bool:
    """Whether nothing in *folder* was written for a day; work still going on writes its files."""
    return time.time() - max(_times(folder), default=time.time()) > STALE_S


def _times(folder: Path) -> Iterator[float]:
    for path in (folder, *folder.rglob("*")):
        try:
            yield path.lstat().st_mtime
        except FileNotFoundError:  # finished and renamed while we looked
            continue


def size_bytes(folder: Path) -> int:
    """Bytes of all files in *folder*; 0 when it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove_folder(folder: Path) -> None:
    """Remove *folder* and all in it; somebody else may do the same meanwhile."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
