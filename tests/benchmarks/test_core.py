"""The core benchmark derives what it shows from what it saw, and counts every wrong answer."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.core.measures import Measure, ceiling, derive
from benchmarks.core.overload import recovered_s, window_p99s_ms
from benchmarks.core.record import CoreRecord
from benchmarks.core.run import run_core
from benchmarks.core.scenarios import count_wrong, split_queue_times
from benchmarks.errors import BenchmarkError
from benchmarks.options import CoreOptions
from benchmarks.wire import Body, Shot, WireRun

rates = st.lists(st.floats(1, 1e4), min_size=3, max_size=3)
SEEN = {
    "ceiling_batch_1_texts_per_s": {"queries": [100.0, 300.0, 100.0]},
    "ceiling_batch_8_texts_per_s": {"queries": [200.0, 200.0, 220.0]},
    "closed_texts_per_s": {"queries": [150.0, 130.0, 110.0]},
    "light_p50_ms": {"queries": [4.0]},
    "alone_median_ms": {"queries": [2.0]},
    "server_cpu_ms": {"queries": [2.5]},
    "engine_cpu_ms": {"queries": [1.75]},
    "exact_texts": {"": [2000.0]},
    "exact_wrong": {"": [1.0]},
}


def line(name: str) -> Measure:
    """The one line of `SEEN` whose name begins so."""
    (found,) = (measure for measure in derive(SEEN) if measure.name.startswith(name))
    return found


def test_shares_are_of_the_same_round() -> None:
    """A share is a round's rate over that round's ceiling, at one batch size for all rounds."""
    assert list(ceiling(SEEN, "queries")) == [200.0, 200.0, 220.0]
    share = line("32 x 1 text, share")
    assert share.values == (0.75, 0.65, 0.5)
    assert (share.median, share.goal, share.held) == (0.65, 0.65, True)


def test_shares_are_of_the_engine_around_them() -> None:
    """Where the engine ran before and after the server, a share is of the two; of whole rounds only."""
    around = {
        **SEEN,
        "engine_before_texts_per_s": {"queries": [180.0, 300.0, 210.0]},
        "engine_after_texts_per_s": {"queries": [220.0, 100.0]},
    }
    (share,) = (one for one in derive(around) if one.name.startswith("32 x 1 text, share"))

    assert list(ceiling(around, "queries")) == [200.0, 200.0]
    assert share.values == (0.75, 0.65)


def test_differences_and_goals() -> None:
    """Light load and CPU stand beside the engine's own; a goal not met is not held."""
    assert line("light load, p50 beyond").median == pytest.approx(4.0 - 1.15 * 2.0)
    assert line("light load, p50 beyond").held is False
    assert line("server CPU beyond").values == (0.75,)
    assert line("server CPU beyond").held is False
    assert line("wrong answers of 2000").held is False


def test_what_the_server_says_of_the_model_goes_before_the_engine_alone() -> None:
    """CPU beyond the model is of the same requests where the server tells."""
    told = {**SEEN, "model_cpu_ms": {"queries": [2.25]}}
    (found,) = (one for one in derive(told) if one.name.startswith("server CPU beyond"))

    assert found.values == (0.25,)
    assert found.held is True


def test_what_the_server_does_not_tell_is_missed() -> None:
    """A ratio the server does not report is a line without a verdict; parts not run are no lines."""
    useful = line("useful tokens")
    assert (useful.median, useful.held) == (None, None)
    assert not [measure for measure in derive(SEEN) if "overload" in measure.name]


@given(rates, st.floats(1, 1e4), st.booleans())
def test_held_is_the_median_against_the_goal(
    values: list[float], goal: float, at_most: bool
) -> None:
    """The verdict follows the median alone, on the goal's side."""
    measure = Measure(name="m", workload="", values=tuple(values), goal=goal, at_most=at_most)
    middle = statistics.median(values)

    assert measure.held == (middle <= goal if at_most else middle >= goal)


def test_record_shows_and_keeps_everything(tmp_path: Path) -> None:
    """The file holds every value and the derived lines; the table names each with its verdict."""
    record = CoreRecord(
        seen=SEEN,
        scenario={"rounds": 3},
        lanes={"count": 2, "threads": 1},
        package_digest="d" * 64,
        precision="int8-row-wise",
    )
    document = json.loads(record.write(tmp_path / "core.json").read_text())
    assert document["seen"] == SEEN
    assert len(document["measures"]) == len(record.measures)

    paper = io.StringIO()
    Console(width=200, file=paper).print(record)
    shown = paper.getvalue()
    assert all(measure.name in shown for measure in record.measures)
    assert " yes " in shown
    assert " no " in shown


def wrong(shots: list[Shot], *, tolerance: float = 0.0) -> int:
    """Wrong answers of two bodies of one and two texts, expected a, b, c with scores 0, 1, 2."""
    bodies = [Body(content=b"", texts=1), Body(content=b"", texts=2)]
    expected = [[label, 0.0, [float(i)]] for i, label in enumerate("abc")]
    return count_wrong(shots, bodies, expected, tolerance=tolerance)


def shot(body: int, answer: object, status: int = 200) -> Shot:
    """A shot answered with *answer*."""
    return Shot(
        sent_s=0,
        latency_ms=1,
        status=status,
        texts=body + 1,
        body=body,
        answer=json.dumps(answer).encode(),
    )


def said(label: str, score: float) -> dict[str, object]:
    """An answer with one score."""
    return {"label": label, "score": score, "scores": {"x": score}}


def test_every_wrong_answer_counts() -> None:
    """Missing, twice, swapped, refused, and off by the last bit are wrong; near is not far."""
    first, both = shot(0, said("a", 0.0)), shot(1, [said("b", 1.0), said("c", 2.0)])
    assert wrong([first, both]) == 0
    assert wrong([both, first]) == 0
    assert wrong([first]) == 2
    assert wrong([first, first, both]) == 1
    assert wrong([first, shot(1, [said("c", 2.0), said("b", 1.0)])]) == 2
    assert wrong([shot(0, {"error": {}}, status=429), both]) == 1
    assert wrong([shot(0, {"label": "a", "score": 0.0}), both]) == 1
    near = [first, shot(1, [said("b", 1.0 + 2**-23), said("c", 2.0)])]
    assert wrong(near) == 1
    assert wrong(near, tolerance=1e-5) == 0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=100, unique=True))
def test_longest_tenth_and_rest_are_all(lengths: list[int]) -> None:
    """Every answered shot is in one of the two; the longest tenth is a tenth, of the longest."""
    shots = tuple(
        Shot(sent_s=0, latency_ms=1, status=200, texts=1, body=i, queue_ms=float(length))
        for i, length in enumerate(lengths)
    )
    run = WireRun(shots=shots, duration_s=1, requests=len(shots), load_s=1, client_cpu_s=0)
    long_ms, rest_ms = split_queue_times(run, lengths)

    assert sorted(long_ms + rest_ms) == sorted(map(float, lengths))
    assert len(long_ms) == len(lengths) // 10
    assert not long_ms or min(long_ms) > max(rest_ms)


def light_load(*slow: tuple[float, float], began_s: float = 0.0, errors: int = 0) -> WireRun:
    """Ten requests a second for fifteen, 5 ms each, but 80 ms in the stretches that are *slow*."""

    def one(at_s: float) -> Shot:
        late = any(begin <= at_s < end for begin, end in slow)
        status = 503 if at_s < errors else 200
        return Shot(sent_s=at_s, latency_ms=80.0 if late else 5.0, status=status, texts=1)

    return WireRun(
        shots=tuple(one(n / 10) for n in range(150)),
        duration_s=15.0,
        requests=150,
        load_s=15.0,
        client_cpu_s=0.1,
        began_s=began_s,
    )


@given(st.floats(0, 10), st.floats(0.5, 3))
def test_service_is_normal_once_it_is_as_before(slow_s: float, began_s: float) -> None:
    """To a step of a quarter of a second; the time until the light load began counts, too."""
    found = recovered_s(
        light_load(), light_load((0, slow_s), began_s=100 + began_s), overload_end_s=100
    )

    assert found is not None
    assert began_s + slow_s - 0.11 <= found <= began_s + slow_s + 0.36


def test_service_that_was_never_as_before_is_missed() -> None:
    """Slow or refused to the end is no recovery, and a line without a value; as slow as before is one."""
    slow = light_load((0, 15))

    assert recovered_s(light_load(), slow, overload_end_s=0) is None
    assert recovered_s(light_load(), light_load(errors=15), overload_end_s=0) is None
    assert recovered_s(light_load((3, 3.2)), slow, overload_end_s=0) == 0
    seen = {"light_after_p99_ms": {"": window_p99s_ms(slow)}}
    (missed,) = derive(seen)
    assert (missed.median, missed.held) == (None, None)
    (normal,) = derive({**seen, "recovery_s": {"": [2.5]}})
    assert normal.held is True


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (CoreOptions(rounds=0), "--rounds"),
        (CoreOptions(only="closed,sideways"), "sideways"),
        (CoreOptions(seconds_s=0), "--seconds"),
        (CoreOptions(texts_count=31), "--texts-count"),
        (CoreOptions(overload_rounds=-1), "--overload-rounds"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(options: CoreOptions, named: str) -> None:
    """An option that cannot be is one sentence that names it."""
    with pytest.raises(BenchmarkError, match=named):
        run_core(options)
