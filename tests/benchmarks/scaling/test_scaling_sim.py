"""Laws of the autoscaling simulator: nothing is lost, waits are true, both policies meet one load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BadTrace, ImpossibleOption
from benchmarks.scaling.options import ScalingOptions
from benchmarks.scaling.policies import OnOngoingRequests, OnQueuedWork
from benchmarks.scaling.run import run_scaling
from benchmarks.scaling.simulator import Observed, ReplicaKind, Simulated, simulate
from benchmarks.scaling.trace import MAKERS, LoadTrace, read_trace
from serving.scaling import ScalingGoal

KIND = ReplicaKind()


class Fixed:
    """Always as many."""

    def __init__(self, count: int) -> None:
        self._count = count

    def wanted(self, observed: Observed, target: int, now_s: float) -> int:  # noqa: ARG002
        """As it was told."""
        return self._count


def constant(load: float, seconds: int = 600, text_ms: float = 3.0) -> LoadTrace:
    """As much in every second."""
    rate = np.full(seconds, load * 1e3 / text_ms)
    return LoadTrace(name="constant", texts_per_s=rate, text_ms=np.full(seconds, text_ms))


def fixed(load: float, count: int, **kind: float) -> Simulated:
    """A constant load on replicas that do not change."""
    return simulate(constant(load), Fixed(count), ReplicaKind(**kind), count=count, seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MAKERS)
def test_work_is_conserved(name: str) -> None:
    """What arrived was done or still waits; replicas are never busier than they are there."""
    trace = MAKERS[name](8, 3)
    goal = ScalingGoal(least=1, most=20)
    seen = simulate(trace, OnQueuedWork(goal, KIND), KIND, count=2, seed=5)

    assert seen.busy_s + seen.waiting_s[-1] == pytest.approx(trace.load.sum(), rel=0.02)
    assert seen.busy_s <= seen.replica_s
    assert seen.waits.sum() == pytest.approx(1)
    assert trace.load.max() <= 8 * 1.001


def test_enough_replicas_keep_nobody_waiting() -> None:
    """At half load the fluid's p99 is below a millisecond, and half of what was paid is wasted."""
    seen = fixed(4.0, 8)

    assert seen.wait_ms(99) < 1
    assert seen.wasted_s / seen.replica_s == pytest.approx(0.5, abs=0.02)


def test_too_few_wait_as_long_as_the_backlog_says() -> None:
    """With half the replicas it needs, a text that comes at t waits about t: half of them over 150 s."""
    seen = fixed(8.0, 4)
    last_s = len(seen.wanted)

    assert seen.wait_ms(50) / 1e3 == pytest.approx(last_s / 2, rel=0.05)
    assert seen.waiting_s[-1] == pytest.approx(4.0 * last_s, rel=0.05)


def test_a_replica_is_paid_while_it_starts_and_ends() -> None:
    """It works from start_s on, and is there for drain_s after it was let go."""

    class Once:
        def wanted(self, observed: Observed, target: int, now_s: float) -> int:  # noqa: ARG002
            return 2 if 100 <= now_s < 200 else 1

    seen = simulate(constant(0.5), Once(), ReplicaKind(start_s=8, drain_s=30), count=1, seed=1)

    assert seen.replica_s == pytest.approx(600 + 100 + 30, abs=2)


@pytest.mark.parametrize(
    ("name", "replicas"), [*((name, 10) for name in MAKERS), ("flash crowd", 900)]
)
def test_ours_is_better_than_rays_default_on_both(name: str, replicas: int) -> None:
    """On every made trace: shorter waits for fewer replica-seconds."""
    trace = MAKERS[name](replicas, 0)
    goal = ScalingGoal(least=1, most=round(replicas * 1.5) + 1)
    count = max(1, math.ceil(trace.load[0] / 0.8))
    ours, default = (
        simulate(trace, policy, KIND, count=count, seed=0)
        for policy in (OnQueuedWork(goal, KIND), OnOngoingRequests(goal))
    )

    assert ours.wait_ms(99) < default.wait_ms(99)
    assert ours.replica_s < default.replica_s


def test_a_step_is_one_decision() -> None:
    """From a tenth to eight tenths of the most: the first other number is already enough."""
    trace = MAKERS["steps"](10, 0)
    goal = ScalingGoal(least=1, most=16)
    seen = simulate(trace, OnQueuedWork(goal, KIND), KIND, count=2, seed=0)
    step_s = 600
    before, after = seen.wanted[step_s - 1], seen.wanted[step_s : step_s + 5]
    first = next(count for count in after if count != before)

    assert first >= 8.0 / (50 / 60)


def test_a_file_is_simulated_and_leaves_a_record_and_a_page(tmp_path: Path) -> None:
    """From CSV to a record that repeats bit for bit, a page without addresses."""
    csv = tmp_path / "monday.csv"
    rows = "\n".join(f"{100 + second % 60 * 20},3" for second in range(120))
    csv.write_text(f"texts_per_s,text_ms\n{rows}\n")
    options = ScalingOptions(trace=csv, output=tmp_path / "a.json")
    record = run_scaling(options)
    again = run_scaling(options)
    kept = json.loads((tmp_path / "a.json").read_text())
    page = (tmp_path / "a.html").read_text()

    assert [run.summary() for run in record.runs] == [run.summary() for run in again.runs]
    assert kept["traces"]["monday"]["default_over_ours"] == record.ratios(record.traces[0])
    assert page.count("<svg") == 2
    assert "monday" in page
    assert 'href="http' not in page
    assert "src=" not in page


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,2\n", "columns"),
        ("texts_per_s,text_ms\n" + "1,2\n" * 10, "60 rows"),
        ("texts_per_s,text_ms\n" + "1,-2\n" * 100, "negative"),
        ("texts_per_s,text_ms\n" + "1,nan\n" * 100, "numbers"),
        ("texts_per_s,text_ms\n" + "1,x\n" * 100, "columns"),
    ],
)
def test_bad_traces_are_refused(content: str, told: str, tmp_path: Path) -> None:
    """A file that is no load says so in one sentence."""
    path = tmp_path / "bad.csv"
    path.write_text(content)

    with pytest.raises(BadTrace, match=told):
        read_trace(path)
    with pytest.raises(BadTrace, match="cannot be read"):
        read_trace(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"replicas": 1001}, {"queue_goal_ms": 0}, {"start_s": -1}]
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    """Each says which option and what it may be."""
    with pytest.raises(ImpossibleOption):
        run_scaling(ScalingOptions(**wrong))  # type: ignore[arg-type]
