"""Tuning tries what differs, keeps what is better beyond chance, and writes what serving writes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bisection import Tried
from benchmarks.tune.race import MARGIN, race
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
