"""What a stage makes is registered whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import store
from registry.artifact import SIGNATURE, verify
from registry.errors import ArtifactExists
from registry.home import home
from registry.produce import Facts, copy_sealed, produce, recipe_digest


def build(folder: Path) -> Facts:
    """A folder of one file."""
    (folder / "data").write_text("content")
    return Facts(metrics={"rows": 1.0})


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An exception while building registers no version, writes no output, leaves no staging."""

    def broken(folder: Path) -> Facts:
        build(folder)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        produce(broken, kind="dataset", name="x", recipe="r", lineage={}, output=tmp_path / "out")
    assert store.list_versions() == []
    assert not (tmp_path / "out").exists()
    assert list((home() / "work" / "sealed").rglob("data")) == []


def test_output_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    """An artifact is never overwritten, and nobody waits for a stage to hear so."""

    def never(folder: Path) -> Facts:
        raise AssertionError(f"built in {folder}")

    (tmp_path / "out").mkdir()

    with pytest.raises(ArtifactExists, match="out"):
        produce(never, kind="dataset", name="x", recipe="r", lineage={}, output=tmp_path / "out")


def test_registered_and_copied_are_one_artifact(tmp_path: Path) -> None:
    """The registered version, the copy at output and a copy of the copy have one digest."""
    version = produce(
        build, kind="dataset", name="x", recipe="r", lineage={"source": "s"}, output=tmp_path / "a"
    )
    copy_sealed(tmp_path / "a", tmp_path / "b")

    assert verify(tmp_path / "a").digest == verify(tmp_path / "b").digest == version.digest
    assert store.find(kind="dataset", name="x", recipe="r") == version


def test_what_is_signed_when_sealed_is_signed_everywhere(tmp_path: Path) -> None:
    """The hook sees a whole artifact; its signature is in the registry and at output."""
    seen = []

    def sign(folder: Path) -> None:
        seen.append(verify(folder).digest)
        (folder / SIGNATURE).write_bytes(b"signed")

    version = produce(
        build, kind="package", name="x", recipe="r", lineage={}, output=tmp_path / "a", sealed=sign
    )

    assert seen == [version.digest]
    for folder in (tmp_path / "a", store.fetch(version)):
        assert (folder / SIGNATURE).read_bytes() == b"signed"


def test_recipe_depends_on_every_part_and_on_no_order() -> None:
    """Equal parts in any order are one recipe; any other part is another."""
    assert recipe_digest({"a": 1, "b": 2}) == recipe_digest({"b": 2, "a": 1})
    assert recipe_digest({"a": 1, "b": 2}) != recipe_digest({"a": 1, "b": 3})
