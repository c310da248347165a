"""Resume points, the lock on a run, and a full disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from training.device import _quota_cores
from training.errors import FitFailed
from training.resume import disk_errors, exclusive, last_complete, step_of


@pytest.fixture
def make_point(tmp_path: Path) -> Callable[[int], Path]:
    """Write a whole checkpoint as Trainer does."""

    def make(step: int) -> Path:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({}, folder / name)
        (folder / "model.safetensors").touch()
        (folder / "trainer_state.json").write_text("{}")
        return folder

    return make


def test_the_newest_point_is_by_step(tmp_path: Path, make_point: Callable[[int], Path]) -> None:
    """Step 100 is newer than step 20, whatever their names sort like."""
    make_point(100)
    make_point(20)
    point = last_complete(tmp_path)

    assert point is not None
    assert step_of(point) == 100


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_torn_point_is_stepped_over_and_removed(
    tmp_path: Path, make_point: Callable[[int], Path], name: str
) -> None:
    """Without one of its files a point is none, and an older whole one is taken."""
    good, torn = make_point(10), make_point(20)
    (torn / name).unlink()

    assert last_complete(tmp_path) == good
    assert not torn.exists()


def test_a_state_cut_short_is_torn(tmp_path: Path, make_point: Callable[[int], Path]) -> None:
    """The state is written last; half of it means that the kill came then."""
    (make_point(10) / "trainer_state.json").write_text('{"epoch": 0.')

    assert last_complete(tmp_path) is None


def test_a_run_is_for_one_process(tmp_path: Path) -> None:
    """A second holder is told at once; after the first is done the run is free again."""
    with (
        exclusive(tmp_path),
        pytest.raises(FitFailed, match="Another process"),
        exclusive(tmp_path),
    ):
        pass
    with exclusive(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk always full")
def test_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    """torch's and safetensors' own words for it become the error that everyone understands."""
    with pytest.raises(OSError, match="No space") as caught, disk_errors(tmp_path):
        torch.save({"weights": torch.zeros(100_000)}, "/dev/full")
    assert caught.value.errno == errno.ENOSPC

    with pytest.raises(OSError, match="No space"), disk_errors(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")


def test_other_errors_pass(tmp_path: Path) -> None:
    """A bug is not taken for a full disk."""
    with pytest.raises(RuntimeError, match="shapes"), disk_errors(tmp_path):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("400000 100000", 4)],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, text: str, cores: int | None) -> None:
    """Whole cores of `cpu.max`, at least one; no file and no limit are the same."""
    (tmp_path / "cpu.max").write_text(text)

    assert _quota_cores(tmp_path / "cpu.max") == cores
    assert _quota_cores(tmp_path / "none") is None
