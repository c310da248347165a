"""What a CPU says it can do, and what a package does on one that cannot."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.core import Core
from serving.engine import Engine
from serving.errors import PackageError
from serving.isa import cpu_features, fast_int8
from serving.lanes import Lanes
from serving.package import Package, open_package
from serving.readiness import cost_here
from serving.settings import ServeSettings

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("content", "feature"), [(X86, "avx512_vnni"), (ARM, "asimddp"), ("model\t: 6502\n", None)]
)
def test_features_are_those_of_the_first_core(
    tmp_path: Path, content: str, feature: str | None
) -> None:
    """x86 and arm64 name them differently; a kernel that names none leaves none."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(content)

    assert fast_int8(cpu_features(cpuinfo)) == feature
    assert (feature is None) is (cpu_features(cpuinfo) == frozenset())


def test_without_a_kernels_word_nothing_is_claimed(tmp_path: Path) -> None:
    """No such file, no features."""
    assert cpu_features(tmp_path / "none") == frozenset()


def for_another_cpu(package: Package) -> Package:
    """The same package, said to be chosen for a CPU that does not exist."""
    config = replace(package.config, isa=("avx4096_vnni",), precision="int8-row-wise")
    return replace(package, config=config)


def test_another_cpu_is_warned_and_measured(
    package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what is missing and what to do, and plans by costs that were measured here."""
    caplog.set_level(logging.WARNING)
    there = for_another_cpu(package)
    lanes = Lanes(count=1, threads=1)
    Core(there, lanes, ServeSettings(package=str(package.folder)))

    cost = cost_here(Engine(there), lanes)

    assert "no avx4096_vnni, for which int8-row-wise was chosen" in caplog.text
    assert "miniml export" in caplog.text
    assert "without avx4096_vnni" in cost.machine
    assert cost.ms != there.cost.ms


def test_the_cpu_it_was_chosen_for_is_trusted(
    package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said and nothing is measured again."""
    lanes = Lanes(count=1, threads=1)
    Core(package, lanes, ServeSettings(package=str(package.folder)))

    assert cost_here(Engine(package), lanes) is package.cost
    assert caplog.text == ""


def test_it_never_answers_wrongly(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU on which int8 overflows gives other logits than the golden ones, and is refused."""
    copy = tmp_path / "copy"
    shutil.copytree(package.folder, copy)
    logits = Engine.logits
    monkeypatch.setattr(Engine, "logits", lambda *given: logits(*given) * np.float32(0.5))

    with pytest.raises(PackageError, match="does not reproduce its golden answers"):
        Core(
            for_another_cpu(open_package(copy)),
            Lanes(count=1, threads=1),
            ServeSettings(package=str(package.folder)),
        )
