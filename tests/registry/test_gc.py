"""Laws of forgetting: nothing that is needed goes, everything that is not needed can."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from registry import store
from registry.artifact import STAGING_SUFFIX, Kind, staged
from registry.errors import BadReference
from registry.gc import STALE_S, doomed
from registry.home import work_folder
from registry.version import Version

MakeArtifact = Callable[..., Path]
PARENT: dict[Kind, Kind] = {"package": "checkpoint", "checkpoint": "dataset"}


@st.composite
def histories(draw: st.DrawFn) -> list[Version]:
    """Versions of all kinds under two names, some aliased, each made from one before it or none."""
    numbers: defaultdict[tuple[str, str], int] = defaultdict(int)
    versions: list[Version] = []
    for minute in range(draw(st.integers(0, 14))):
        kind: Kind = draw(st.sampled_from(["dataset", "checkpoint", "package"]))
        name = draw(st.sampled_from(["a", "b"]))
        numbers[kind, name] += 1
        parents = [version for version in versions if version.kind == PARENT.get(kind)]
        parent = draw(st.sampled_from([None, *parents]))
        versions.append(
            Version(
                kind=kind,
                name=name,
                number=numbers[kind, name],
                digest=f"{kind}-{draw(st.integers(0, 5))}-{name}",
                uri="",
                run_id=str(minute),
                created_at=f"2030-01-01T00:{minute:02}:00.000+00:00",
                aliases=("champion",) if draw(st.integers(0, 4)) == 0 else (),
                lineage={f"{parent.kind}_digest": parent.digest} if parent else {},
                metrics={},
                recipe="",
            )
        )
    return versions


@given(versions=histories(), keep=st.integers(1, 4))
def test_only_what_nothing_needs_is_doomed(versions: list[Version], keep: int) -> None:
    """Aliased versions, the newest of a name, and all their ancestors stay; the rest goes."""
    gone = doomed(versions, keep=keep)
    kept = [version for version in versions if version not in gone]
    needed_digests = {digest for version in kept for digest in version.lineage.values()}
    for version in gone:
        newer = [
            other
            for other in kept
            if (other.kind, other.name) == (version.kind, version.name)
            and other.number > version.number
        ]
        assert not version.aliases
        assert len(newer) >= keep
        assert version.digest not in needed_digests
    for version in kept:
        rank = sum(
            (other.kind, other.name) == (version.kind, version.name)
            and other.number > version.number
            for other in versions
        )
        assert version.aliases or rank < keep or version.digest in needed_digests


def test_gc_removes_old_versions_with_their_bytes(
    make_artifact: MakeArtifact, store_home: Path
) -> None:
    """Records and bytes of what nothing needs go; a dry run says the same and removes nothing."""
    old = [store.publish(make_artifact("dataset"), name="reviews") for _ in range(2)]
    lineage = {"dataset": old[0].reference, "dataset_digest": old[0].digest}
    champion = store.publish(make_artifact(lineage=lineage), name="reviews", alias="champion")
    packages = [store.publish(make_artifact(), name="reviews") for _ in range(2)]
    newest = store.publish(make_artifact("dataset"), name="reviews")
    before = store.list_versions()

    plan = store.gc(keep=1, dry_run=True)
    assert store.list_versions() == before
    result = store.gc(keep=1)

    assert plan.document() == result.document() | {"dry_run": True}
    assert set(map(str, result.removed)) == set(map(str, [packages[0], old[1]]))
    assert result.freed_bytes > 0
    assert result.kept_versions == 4
    assert {version.run_id for version in store.list_versions()} == {
        version.run_id for version in (champion, packages[1], old[0], newest)
    }
    for version in store.list_versions():
        store.fetch(version)
    runs = {path.name for path in (store_home / "registry" / "artifacts").iterdir()}
    assert runs == {version.run_id for version in store.list_versions()}
    assert store.publish(make_artifact(), name="reviews").number == 4
    console = Console()
    with console.capture() as capture:
        console.print(result)
    assert "Removed 2 version(s)" in capture.get()


def test_gc_sweeps_only_what_is_stale(miniml_home: Path) -> None:
    """Staging and work folders untouched for a day go; those somebody still writes to stay."""
    long_ago = time.time() - STALE_S - 60
    for key in ("dead", "alive"):
        (work_folder("train", key) / "deep").mkdir()
        (work_folder("train", key) / "deep" / "step.bin").write_bytes(b"x" * 100)
        with staged(miniml_home / "out" / key, kind="dataset", lineage={}) as folder:
            (folder / "rows").write_text("rows")
            shutil.copytree(folder, folder.with_name(f".{key}{STAGING_SUFFIX}"))
    for path in [*miniml_home.rglob("*")]:
        os.utime(path, (long_ago, long_ago))
    for path in (work_folder("train", "alive"), miniml_home / "out" / f".alive{STAGING_SUFFIX}"):
        newest = next(path.rglob("*.bin"), path / "rows")
        newest.write_bytes(b"still at work")

    result = store.gc()

    assert set(result.folders) == {
        str(miniml_home / "work" / "train" / "dead"),
        str(miniml_home / "out" / f".dead{STAGING_SUFFIX}"),
    }
    assert not any(Path(folder).exists() for folder in result.folders)
    assert (miniml_home / "out" / "dead").is_dir()
    assert (work_folder("train", "alive") / "deep" / "step.bin").exists()
    assert store.gc().folders == ()


def test_gc_never_empties_a_name() -> None:
    """To keep nothing is refused."""
    with pytest.raises(BadReference, match="newest"):
        store.gc(keep=0)
