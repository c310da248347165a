"""A soak of two minutes on a real server."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak.growth import MOST_GROWTH
from benchmarks.soak.options import SoakOptions
from benchmarks.soak.run import run_soak
from serving.environment import free_ports
from serving.package import Package


def test_two_minutes_of_load_leave_nothing(package: Package, tmp_path: Path) -> None:
    """No error, and memory that does not grow.

    At half of the capacity: whoever shares the machine must not make an overload of it.
    """
    (port,) = free_ports(1)
    record = run_soak(
        SoakOptions(
            package=str(package.folder),
            port=port,
            minutes=2.0,
            warmup_minutes=1.0,
            capacity_s=10.0,
            sample_s=1.0,
            share=0.5,
            cache_mb=0,
            texts_count=4096,
            output=tmp_path / "soak.json",
        )
    )

    assert not record.run.interrupted
    assert len(record.run.shots) > 100 * record.run.duration_s / 60
    assert record.run.errors == {}
    grown = record.series[0].growth
    assert grown is not None
    assert grown <= MOST_GROWTH
