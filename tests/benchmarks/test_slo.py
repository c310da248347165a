"""The search finds the highest rate that holds, though trials lie, and keeps what it saw."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bisection import Tried
from benchmarks.options import SloOptions
from benchmarks.record import percentile
from benchmarks.schedule import Schedule
from benchmarks.slo.run import run_slo
from benchmarks.slo.search import estimate, knee, ladder, next_rate
from benchmarks.slo.trials import Goal, TrialStand, trial_seconds
from benchmarks.workloads import Body

Synthetics = Callable[..., AbstractContextManager[Any]]
PRECISION, REPEATS, MOST = 0.05, 3, 24
trials = st.lists(
    st.builds(Tried, rate_per_s=st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0]), held=st.booleans())
)


def search(holds: Callable[[float], bool], start: float) -> list[Tried]:
    """What is tried until nothing is left to learn, or the trials have run out."""
    tried: list[Tried] = []
    while len(tried) < MOST:
        rate = next_rate(tried, start_per_s=start, precision=PRECISION, repeats=REPEATS)
        if rate is None:
            break
        tried.append(Tried(rate_per_s=rate, held=holds(rate)))
    return tried


@given(trials)
def test_shares_fall_with_the_rate(tried: list[Tried]) -> None:
    """However trials came out, a higher rate never has the larger share, and no trial is lost."""
    rungs = ladder(tried)

    assert [rung.rate_per_s for rung in rungs] == sorted({t.rate_per_s for t in tried})
    assert all(a.share >= b.share for a, b in pairwise(rungs))
    assert sum(rung.trials for rung in rungs) == len(tried)
    held = sum(trial.held for trial in tried)
    assert math.isclose(sum(rung.share * rung.trials for rung in rungs), held, abs_tol=1e-9)


@given(trials, st.randoms())
def test_the_order_of_trials_does_not_matter(tried: list[Tried], chance: random.Random) -> None:
    """The estimate is of what was seen, not of when; and its three rates are in order."""
    found = estimate(tried)
    shuffled = list(tried)
    chance.shuffle(shuffled)

    assert estimate(shuffled) == found
    assert found.always_per_s <= found.rate_per_s < found.never_per_s
    assert found.rate_per_s == 0 or found.rate_per_s in {trial.rate_per_s for trial in tried}


@given(st.floats(1, 1e4), st.floats(0.3, 3))
def test_a_sharp_limit_is_found_and_repeated(limit: float, start_share: float) -> None:
    """Where trials never lie, the answer is below the limit by the precision at most, tried thrice."""
    tried = search(lambda rate: rate <= limit, start_share * limit)
    found = estimate(tried)

    assert limit / (1 + PRECISION) * (1 - 1e-9) <= found.rate_per_s <= limit
    assert found.rate_per_s == found.always_per_s
    assert limit < found.never_per_s <= found.rate_per_s * (1 + PRECISION) * (1 + 1e-9)
    for rate in (found.rate_per_s, found.never_per_s):
        assert sum(trial.rate_per_s == rate for trial in tried) == REPEATS


@given(st.integers(0, 7))
def test_one_trial_that_fails_by_bad_luck_costs_trials_and_not_the_answer(unlucky: int) -> None:
    """Whichever trial fails though it should hold, the limit is found all the same."""
    count = 0

    def holds(rate: float) -> bool:
        nonlocal count
        count += 1
        return rate <= 100 and count != unlucky + 1

    found = estimate(search(holds, 60))

    assert 100 / (1 + PRECISION) ** 2 <= found.rate_per_s <= 100


def test_two_searches_of_one_server_agree() -> None:
    """With a p99 that scatters by 15 % from trial to trial, nine pairs in ten are within 10 %.

    The server: a wait that grows as 1 / (1 - load), capacity 100, a goal that is kept up to 90.
    """
    chance = random.Random(0)

    def holds(rate: float) -> bool:
        return rate < 100 and 10 / (1 - rate / 100) * chance.lognormvariate(0, 0.15) <= 100

    answers = [estimate(search(holds, 60)).rate_per_s for _ in range(400)]
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    near = sum(abs(a - b) <= 0.1 * max(a, b) for a, b in pairs)

    assert near >= 0.9 * len(pairs)
    assert 86 <= sorted(answers)[200] <= 93


@given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(0.1, 1e3)), max_size=9))
def test_the_knee_has_the_greatest_power(points: list[tuple[float, float]]) -> None:
    """No other rate is higher for its latency; without points there is none."""
    found = knee(points)
    if found is None:
        assert points == []
    else:
        powers = [rate / ms for rate, ms in points]
        assert any(rate == found and rate / ms == max(powers) for rate, ms in points)


def test_a_knee_is_where_latency_takes_off() -> None:
    """Of a server whose wait is 1 / (1 - load), the knee is at half of its capacity."""
    assert knee([(rate, 1 / (1 - rate / 100)) for rate in range(5, 100, 5)]) == 50


@given(st.floats(0.1, 30), st.floats(0.01, 1e4))
def test_rare_requests_are_waited_for_but_not_for_ever(trial_s: float, rate: float) -> None:
    """A trial lasts as asked, or until 200 requests came, but no more than four times as asked."""
    found = trial_seconds(trial_s, rate)

    assert trial_s <= found <= 4 * trial_s
    assert found == trial_s or found == 4 * trial_s or math.isclose(found * rate, 200)


def test_the_record_shows_what_it_claims(synthetic: Synthetics, tmp_path: Path) -> None:
    """Every trial's verdict follows from its own samples, and the answer from the verdicts."""
    path = tmp_path / "slo.json"
    with synthetic(hold_s=lambda *_: 0.004, one_at_a_time=True) as server:
        record = run_slo(
            SloOptions(
                url=server.url,
                workload="queries",
                p99_ms=250,
                trial_s=0.6,
                warmup_s=0.1,
                repeats=2,
                max_trials=8,
                output=path,
            )
        )
    document = json.loads(path.read_text())

    assert document["kind"] == "slo"
    assert document["partial"] is False
    tried = []
    for trial in document["trials"]:
        ok_ms = [ms for _, ms, status, _ in trial["samples"] if status == 200]
        errors = sum(status != 200 for _, _, status, _ in trial["samples"])
        if trial["held"]:
            assert errors == 0
            assert percentile(ok_ms, 99) <= 250
            sent, asked = trial["summary"]["sent_per_s"], trial["rate_per_s"]
            assert abs(sent - asked) * trial["duration_s"] <= max(0.02 * len(ok_ms), 2)
        else:
            assert trial["miss"]
        if trial["role"] == "search":
            tried.append(Tried(rate_per_s=trial["rate_per_s"], held=trial["held"]))
    assert document["result"]["rate_per_s"] == estimate(tried).rate_per_s
    assert document["result"]["rate_per_s"] == record.estimate.rate_per_s
    assert len(tried) <= 8
    assert len({trial["seed"] for trial in document["trials"]}) == len(document["trials"])
    curve = document["curve"]
    assert [point["rate_per_s"] for point in curve] == sorted(
        {trial["rate_per_s"] for trial in document["trials"]}
    )
    assert sum(point["trials"] for point in curve) == len(document["trials"])


def test_ctrl_c_keeps_the_trials_so_far(synthetic: Synthetics, tmp_path: Path) -> None:
    """An interrupted search leaves the trials that had ended, marked as partial, and exits 130."""
    path = tmp_path / "slo.json"
    with synthetic(hold_s=lambda *_: 0.002) as server:
        command = [sys.executable, "-m", "miniml", "bench", "slo", "--url", server.url]
        command += ["--workload", "queries", "--trial-s", "0.5", "--warmup-s", "0"]
        command += ["--output", str(path), "--max-trials", "500", "--precision", "0.0001"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        while said.count("requests/s held") < 2:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=60)[1]
    document = json.loads(path.read_text())

    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert document["partial"] is True
    assert len(document["trials"]) >= 2
    assert "Interrupted" in said


@pytest.mark.parametrize("client", ["wire", "locust"])
def test_a_trial_is_the_same_load_by_either_client(
    synthetic: Synthetics, client: Literal["wire", "locust"]
) -> None:
    """Lean or Locust, a trial sends what is due when it is due, and errors miss the goal."""
    bodies = [Body(content=b'{"text": "%d"}' % number, texts=1) for number in range(50)]
    with synthetic(status=lambda number: 503 if number == 70 else 200) as server:
        stand = TrialStand(
            url=server.url,
            bodies=bodies,
            goal=Goal(p99_ms=10_000),
            trial_s=1.0,
            warmup_s=0.2,
            client=client,
        )
        trial = stand.attempt(200, seed=4)
    schedule = Schedule(rate_per_s=200, warmup_s=0.2, duration_s=1.0, seed=4)

    assert [shot.sent_s for shot in trial.run.shots] == [at for at in schedule.due_s() if at >= 0.2]
    assert server.came == 240
    assert trial.miss == "errors: 1 x 503"
    assert not trial.tried.held
