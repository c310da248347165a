"""Tuning tries what differs, keeps what is better beyond chance, and writes what serving writes."""

from __future__ import annotations

import io
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.bisection import Tried
from benchmarks.options import TuneOptions
from benchmarks.slo.trials import Goal
from benchmarks.tune.race import MARGIN, race
from benchmarks.tune.record import TuneRecord
from benchmarks.tune.run import run_tune
from benchmarks.tune.space import ServeSetting, batch_settings, lane_settings, queue_settings

limits = st.floats(1, 1e4)


def counting(limit: float, tried: list[Tried]) -> Callable[[float], Tried]:
    """A setting that holds up to *limit*, and keeps its trials."""

    def attempt(rate_per_s: float) -> Tried:
        tried.append(Tried(rate_per_s=rate_per_s, held=rate_per_s <= limit))
        return tried[-1]

    return attempt


@given(limits, limits)
def test_a_race_is_won_by_who_holds_more(best: float, limit: float) -> None:
    """Who does not hold 5 % more loses after two trials; who does is known to a tenth."""
    tried: list[Tried] = []
    found = race(counting(limit, tried), start_per_s=best, best_per_s=best)

    if limit < MARGIN * best:
        assert found == 0
        assert len(tried) == 2
    else:
        assert MARGIN * best <= found <= limit
        assert Tried(rate_per_s=found, held=True) in tried
        assert len(tried) <= 8
        if limit < 5 * best:
            assert found >= limit / 1.11


@given(limits, st.floats(0.2, 3))
def test_the_first_setting_is_measured_from_a_guess(limit: float, share: float) -> None:
    """With nobody to beat, the rate is found from a start that may be too high or too low."""
    found = race(counting(limit, []), start_per_s=share * limit, best_per_s=0.0)

    assert limit / 1.5 <= found <= limit


@given(st.integers(1, 64), st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
def test_lanes_use_all_cores_in_every_way(cores: int, packages: list[str]) -> None:
    """Each package is tried as it comes first of all, then with each split of all cores, once."""
    found = lane_settings(packages, cores)

    assert found[: len(packages)] == [ServeSetting(package=package) for package in packages]
    assert len(set(found)) == len(found)
    for setting in found[len(packages) :]:
        assert setting.lanes is not None
        assert setting.threads is not None
        assert setting.lanes * setting.threads == cores
    assert sum(setting.threads == 1 for setting in found) == len(packages)


@given(st.sampled_from([1, 8, 32, 128]), st.sampled_from([50.0, 1000.0, 2000.0]))
def test_neighbours_differ_in_one_thing(max_batch: int, goal_ms: float) -> None:
    """Limits are changed one at a time, and what is the best already is not tried again."""
    best = ServeSetting(package="p", lanes=2, threads=1, max_batch=max_batch)

    for other in (*batch_settings(best), *queue_settings(best, goal_ms)):
        assert other != best
        changed = {
            name for name, value in other.document().items() if value != best.document()[name]
        }
        assert len(changed) == 1
    assert {setting.max_batch for setting in batch_settings(best)} >= {1, 8, 128} - {max_batch}


def test_a_setting_says_what_the_command_understands() -> None:
    """Its words are options of `miniml serve`; what has none goes through the environment."""
    from dataclasses import fields

    from serving.options import ServeOptions
    from serving.settings import ServeSettings

    setting = ServeSetting(package="p", lanes=2, threads=1, max_batch=8, max_queue_ms=100)
    known = {"--" + field.name.replace("_", "-") for field in fields(ServeOptions)}

    assert {word for word in setting.arguments if word.startswith("--")} <= known
    for name in setting.environment:
        assert name.removeprefix("MINIML_").lower() in ServeSettings.model_fields


def test_what_is_written_is_what_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are started by setting, the best of them stands in the file, and every trial is kept."""
    shutil.copy(Path(__file__).with_name("tuned_server.py"), tmp_path / "miniml.py")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    (tmp_path / "package").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    record = run_tune(
        TuneOptions(
            package=(str(tmp_path / "package"),),
            workload="queries",
            p99_ms=300,
            budget_minutes=0.6,
            trial_s=0.25,
            warmup_s=0.1,
            port=port,
            write_config=tmp_path / "serve.yaml",
            output=tmp_path / "tune.json",
        )
    )
    document = json.loads((tmp_path / "tune.json").read_text())
    contests = document["contests"]
    raced = [contest for contest in contests if contest["stage"] in ("lanes", "batch")]

    assert document["kind"] == "tune"
    assert document["partial"] is False
    assert contests[0]["setting"] == ServeSetting(package=str(tmp_path / "package")).document()
    for contest in raced:
        held = [trial["rate_per_s"] for trial in contest["trials"] if trial["held"]]
        assert contest["rate_per_s"] == 0 or contest["rate_per_s"] in held
    best = document["best"]
    assert record.best is not None
    assert record.best.document() == best
    fastest = max(raced, key=lambda contest: contest["rate_per_s"])["setting"]
    again = {c["rate_per_s"] for c in contests if c["stage"] == "final"}
    if len(again) < 2 or best["lanes"]:
        assert {**best, "max_queue_ms": 0} == {**fastest, "max_queue_ms": 0}
    written = json.loads((tmp_path / "serve.yaml").read_text())
    assert {name: written[name] for name in best} == best


@pytest.mark.parametrize("best", [None, ServeSetting(package="latest")])
def test_an_interrupted_tuning_gives_no_verdict(best: ServeSetting | None) -> None:
    """It says that it was cut short and wrote no file, not that nothing kept the goal."""
    record = TuneRecord(
        goal=Goal(p99_ms=100),
        contests=[],
        best=best,
        written=None,
        complete=True,
        partial=True,
        scenario={"workload": "queries"},
    )
    paper = io.StringIO()
    Console(width=200, file=paper).print(record)
    said = " ".join(paper.getvalue().split())

    assert "no config file was written" in said
    assert "No setting kept the goal" not in said
    assert ("Best:" in said) == (best is not None)
