"""Laws of calibration: lanes fill the cores, are found in bounded time, and are remembered."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from serving.calibration import calibrated_lanes, measured_lanes
from serving.lanes import Lanes
from serving.package import Package


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 12])
def test_lanes_fill_the_cores(package: Package, cores: int) -> None:
    """Whatever is fastest, every core has its thread, and no core two."""
    lanes = measured_lanes(package, cores, budget_s=0.05)

    assert lanes.count * lanes.threads == cores


def test_what_was_found_is_remembered(
    package: Package, monkeypatch: pytest.MonkeyPatch, miniml_home: Path
) -> None:
    """The second time nothing is measured, and a damaged memory is measured again."""
    found = calibrated_lanes(package, 2, budget_s=0.05)
    (memory,) = (miniml_home / "cache" / "lanes").iterdir()
    kept = memory.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent")  # whoever measures, fails
        assert calibrated_lanes(package, 2, budget_s=0.05) == found
    memory.write_text("{")

    assert calibrated_lanes(package, 2, budget_s=0.05).count in (1, 2)
    assert json.loads(memory.read_bytes()).keys() == json.loads(kept).keys()


def test_what_cannot_be_measured_is_a_lane_a_core(
    package: Package,
    miniml_home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A process that fails is no hindrance: the reason is logged, and the next start asks again."""
    caplog.set_level(logging.WARNING)
    (package.folder / "model.onnx").unlink()

    assert calibrated_lanes(package, 2, budget_s=0.05) == Lanes(count=2, threads=1)
    assert "model.onnx" in caplog.text
    assert not (miniml_home / "cache" / "lanes").exists()


def test_no_time_left_is_time_for_one(package: Package) -> None:
    """However short the budget, the answer is a split of the cores, the one with most lanes."""
    assert measured_lanes(package, 4, budget_s=0.0).count == 4


def test_a_home_that_cannot_be_written_is_no_hindrance(
    package: Package, miniml_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lanes are found all the same."""
    blocked = miniml_home / "file"
    blocked.write_text("")
    monkeypatch.setenv("MINIML_HOME", str(blocked))

    assert calibrated_lanes(package, 2, budget_s=0.05).count in (1, 2)
