"""Laws of the sealed folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import store
from registry.artifact import (
    MANIFEST,
    SIGNATURE,
    STAGING_SUFFIX,
    read_manifest,
    seal,
    staged,
    verify,
)
from registry.errors import ArtifactExists, CorruptArtifact, NotFound
from registry.produce import copy_sealed

NAMES = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3})?(\.[a-z]{1,3})?", fullmatch=True)
TREES = st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=4).filter(
    # A name may not be a file and a folder at once.
    lambda files: not {name.split("/")[0] for name in files if "/" in name} & set(files)
)

# An example seals folders, and sealing waits for the disk.
ON_DISK = settings(deadline=None, max_examples=50)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Put *files* into *folder*, in their order."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@ON_DISK
@given(files=TREES, lineage=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_round_trip(files: dict[str, bytes], lineage: dict[str, str]) -> None:
    """What was sealed verifies, with the same files, bytes and lineage."""
    with tempfile.TemporaryDirectory() as parent:
        target = Path(parent) / "made"
        with staged(target, kind="dataset", lineage=lineage) as folder:
            write(folder, files)

        manifest = verify(target, kind="dataset")

        assert manifest == read_manifest(target)
        assert manifest.lineage == lineage
        assert {name: (target / name).read_bytes() for name in manifest.files} == files
        assert manifest.total_bytes == sum(map(len, files.values()))
        assert [path.name for path in Path(parent).iterdir()] == ["made"]


@ON_DISK
@given(data=st.data())
def test_a_flipped_byte_is_refused(data: st.DataObject) -> None:
    """Whichever byte of a listed file changes, and to whatever, the file is named and refused."""
    files = data.draw(TREES.filter(lambda files: any(files.values())))
    name = data.draw(st.sampled_from(sorted(name for name in files if files[name])))
    position = data.draw(st.integers(0, len(files[name]) - 1))
    mask = data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write(folder, files)
        seal(folder, kind="dataset", lineage={})
        damaged = bytearray(files[name])
        damaged[position] ^= mask
        (folder / name).write_bytes(damaged)

        with pytest.raises(CorruptArtifact, match=name):
            verify(folder)


@ON_DISK
@given(position=st.integers(min_value=0), mask=st.integers(1, 255))
def test_a_flipped_byte_of_the_manifest_never_passes_as_the_same(position: int, mask: int) -> None:
    """A changed manifest is refused, or it is another artifact with another digest."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write(folder, {"a": b"x" * 12345, "b": b""})
        digest = seal(folder, kind="package", lineage={"dataset": "reviews/1"}).digest
        damaged = bytearray((folder / MANIFEST).read_bytes())
        damaged[position % len(damaged)] ^= mask
        (folder / MANIFEST).write_bytes(damaged)

        try:
            found = verify(folder).digest
        except CorruptArtifact:
            return
        assert found != digest


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"files"', b'"unseen": 1, "files"'),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b'"kind": "package"', b'"kind": "virus"'),
        lambda text: text.replace(b'"bytes": 2', b'"bytes": 1e999'),
        lambda _: b"[]",
        lambda _: b"",
        lambda _: b"\xff\xfe",
    ],
)
def test_a_manifest_is_exactly_what_was_sealed(
    make_artifact: Callable[..., Path], change: Callable[[bytes], bytes]
) -> None:
    """What the digest would not cover, or what is no manifest at all, is refused."""
    folder = make_artifact()
    written = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(change(written))

    assert change(written) != written
    with pytest.raises(CorruptArtifact, match=MANIFEST):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("extra.txt", lambda folder: (folder / "extra.txt").write_text("")),
        ("deep/extra", lambda folder: (folder / "deep" / "extra").write_text("")),
        ("config.json", lambda folder: (folder / "config.json").unlink()),
        ("link", lambda folder: (folder / "link").symlink_to(folder / "config.json")),
        ("pipe", lambda folder: os.mkfifo(folder / "pipe")),
        (MANIFEST, lambda folder: (folder / MANIFEST).unlink()),
    ],
)
def test_more_less_or_other_than_listed_is_refused(
    make_artifact: Callable[..., Path], name: str, spoil: Callable[[Path], object]
) -> None:
    """An extra file, a missing one, a link and a device are refused by name."""
    folder = make_artifact()
    spoil(folder)

    with pytest.raises(CorruptArtifact, match=name):
        verify(folder)


def test_another_kind_is_refused(make_artifact: Callable[..., Path]) -> None:
    """A dataset does not pass where a package is needed, nor a path where nothing is."""
    with pytest.raises(CorruptArtifact, match="holds a dataset, but a package"):
        verify(make_artifact("dataset"), kind="package")
    with pytest.raises(NotFound):
        verify(Path("nowhere"))


def test_survives_a_move(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    """Neither place nor name of the folder is part of the artifact."""
    folder = make_artifact()
    before = verify(folder)
    shutil.move(folder, tmp_path / "elsewhere")

    assert verify(tmp_path / "elsewhere") == before


@ON_DISK
@given(files=TREES)
def test_digest_depends_on_content_and_lineage_only(files: dict[str, bytes]) -> None:
    """Order of writing, times and modes do not matter; a byte and a lineage entry do."""
    backwards = dict(reversed(files.items()))
    with tempfile.TemporaryDirectory() as parent:
        digests = []
        for number, (content, lineage) in enumerate(
            [
                (files, {"x": "1", "y": "2"}),
                (backwards, {"y": "2", "x": "1"}),
                (files, {"x": "1"}),
                (files | {"more": b""}, {"x": "1", "y": "2"}),
            ]
        ):
            folder = Path(parent) / str(number)
            write(folder, content)
            for name in content:
                os.utime(folder / name, (number, number))
                (folder / name).chmod(0o600 + number * 0o40)
            digests.append(seal(folder, kind="package", lineage=lineage).digest)

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_an_interrupted_staging_leaves_nothing(tmp_path: Path) -> None:
    """When the work fails, neither target nor staging folder is there."""

    def fail() -> None:
        with staged(tmp_path / "target", kind="package", lineage={}) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_a_staging_folder_is_no_artifact(tmp_path: Path) -> None:
    """What a killed process leaves has no manifest, says so by its name, and blocks nobody."""
    with staged(tmp_path / "target", kind="package", lineage={}) as folder:
        (folder / "half").write_text("half")
        killed = shutil.copytree(folder, folder.with_name(f".left{STAGING_SUFFIX}"))
        with pytest.raises(CorruptArtifact):
            verify(killed)

    verify(tmp_path / "target")


def test_an_artifact_is_never_overwritten(make_artifact: Callable[..., Path]) -> None:
    """A target that is there is refused at the start, and at the end when it came meanwhile."""
    folder = make_artifact()
    before = verify(folder)
    with (
        pytest.raises(ArtifactExists, match="already exists"),
        staged(folder, kind="package", lineage={}),
    ):
        pass
    late = folder.with_name("late")
    with (
        pytest.raises(ArtifactExists, match="meanwhile"),
        staged(late, kind="package", lineage={}),
    ):
        shutil.copytree(folder, late)

    assert verify(folder) == before
    assert verify(late) == before


@ON_DISK
@given(files=TREES, signature=st.binary(max_size=40), other=st.binary(max_size=40))
def test_a_signature_is_no_part_of_what_is_signed(
    files: dict[str, bytes], signature: bytes, other: bytes
) -> None:
    """There, changed or gone, before sealing or after: never listed, never extra, same digest."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write(folder, files)
        sealed = seal(folder, kind="package", lineage={})
        for bytes_ in (signature, other):
            (folder / SIGNATURE).write_bytes(bytes_)
            assert verify(folder) == sealed
        assert seal(folder, kind="package", lineage={}) == sealed
        (folder / SIGNATURE).unlink()

        assert verify(folder) == sealed
        assert SIGNATURE not in sealed.files


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "deep" / SIGNATURE).write_text(""),
        lambda folder: (folder / SIGNATURE).symlink_to(folder / "config.json"),
    ],
)
def test_only_a_plain_file_in_front_is_a_signature(
    make_artifact: Callable[..., Path], spoil: Callable[[Path], object]
) -> None:
    """The name elsewhere is an extra file, and a link is a link."""
    folder = make_artifact()
    spoil(folder)

    with pytest.raises(CorruptArtifact, match=SIGNATURE):
        verify(folder)


@pytest.mark.usefixtures("store_home")
def test_a_signature_travels(make_artifact: Callable[..., Path], tmp_path: Path) -> None:
    """Publishing, fetching and copying bring it along; what is not signed stays so."""
    signed, unsigned = make_artifact(), make_artifact()
    (signed / SIGNATURE).write_bytes(b"signed")
    fetched = store.fetch(store.publish(signed, name="signed"))
    copy_sealed(fetched, tmp_path / "copy")

    assert fetched != signed
    assert (tmp_path / "copy" / SIGNATURE).read_bytes() == b"signed"
    assert not (store.fetch(store.publish(unsigned, name="unsigned")) / SIGNATURE).exists()
