"""All benchmarks in turn: time is shared out, whoever fails is said so, and the rest goes on."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ImpossibleOption, LoadFailed, StageOverran
from benchmarks.suite.budget import allowance_s, at_most
from benchmarks.suite.course import run_stages
from benchmarks.suite.options import SuiteOptions
from benchmarks.suite.run import SuiteResult, run_suite
from benchmarks.suite.stages import Ground, SuiteStage, stages

NOBODY = Ground(options=SuiteOptions(), package=Path(), url=lambda: "http://127.0.0.1:9")
shares = st.lists(st.floats(0.1, 100), min_size=1, max_size=12)


@given(st.floats(1, 1e5), shares, st.data())
def test_nobody_gets_less_than_its_share_and_all_fit(
    budget_s: float, shares: list[float], data: st.DataObject
) -> None:
    """However much of its allowance each takes: each is given its share at least, all no more."""
    spent_s = 0.0
    for place, share in enumerate(shares):
        limit_s = allowance_s(budget_s - spent_s, shares[place:])

        assert limit_s >= budget_s * share / sum(shares) * (1 - 1e-9)
        spent_s += limit_s * data.draw(st.floats(0, 1))
    assert spent_s <= budget_s * (1 + 1e-9)


def test_time_that_is_over_interrupts() -> None:
    """What waits for ever is interrupted, can keep what it has, and is told why; once."""
    kept = []
    before = signal.getsignal(signal.SIGALRM)

    def wait() -> None:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            kept.append("record")
            raise

    with pytest.raises(StageOverran, match="higher --budget-minutes"), at_most(0.05):
        wait()

    assert kept == ["record"]
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_timer_that_runs_goes_on() -> None:
    """Who set one before finds it again, with as much less as the block took; else there is none."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    with at_most(3600):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    signal.setitimer(signal.ITIMER_REAL, 1000)
    with at_most(3600):
        inside_s, _ = signal.getitimer(signal.ITIMER_REAL)
    after_s, _ = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert 1000 < inside_s <= 3600
    assert 0 < after_s <= 1000


def test_ctrl_c_stays_one() -> None:
    """An interrupt that was not the clock's is handed on."""
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt), at_most(3600):
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGALRM) == before


def stage(name: str, ran: list[str], error: BaseException | None = None) -> SuiteStage:
    """One that notes its name, and then fails if it is to."""

    def run(_: Ground) -> str:
        ran.append(name)
        if error:
            raise error
        return name

    return SuiteStage(kind="test", name=name, share=1, run=run)


def test_a_stage_that_fails_is_said_and_the_rest_goes_on() -> None:
    """In order, each once; exit code 1 with the sentence, and 0 when there is none."""
    ran: list[str] = []
    three = [stage("a", ran), stage("b", ran, LoadFailed("Nobody answers.")), stage("c", ran)]
    outcomes = run_stages(three, NOBODY, budget_s=60)

    assert ran == [one.stage for one in outcomes] == ["a", "b", "c"]
    assert [one.fault for one in outcomes] == ["", "Nobody answers.", ""]
    assert [one.result for one in outcomes] == ["a", None, "c"]
    assert SuiteResult(outcomes=outcomes, output=Path()).exit_code == 1
    assert SuiteResult(outcomes=outcomes[:1], output=Path()).exit_code == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_an_interrupt_and_a_bug_end_all(error: BaseException) -> None:
    """Neither is taken for something the user can mend."""
    ran: list[str] = []
    with pytest.raises(type(error)):
        run_stages([stage("a", ran, error), stage("b", ran)], NOBODY, budget_s=60)

    assert ran == ["a"]


def test_a_stage_without_time_left_is_cut_short() -> None:
    """When the clock says that all time is gone, what is left to do does not run on."""
    passed_s = iter([0.0, 100.0, 100.0, 100.0, 100.0])
    waits = SuiteStage(kind="test", name="waits", share=1, run=lambda _: threading.Event().wait())
    (outcome,) = run_stages([waits], NOBODY, budget_s=60, clock=lambda: next(passed_s))

    assert "was cut short" in outcome.fault


def test_the_order_is_from_the_engine_outwards() -> None:
    """Backends, core, loads, searches, report; a closed loop before the open one that needs its rate."""
    names = [each.name for each in stages()]

    assert (names[0], names[1], names[-1]) == ("backends", "core", "report")
    for workload in ("reviews", "queries"):
        loads = [f"{kind}, {workload}" for kind in ("closed loop", "open loop", "highest rate")]
        places = [names.index(name) for name in loads]
        assert places == sorted(places)
    assert [each.name for each in stages("slo")] == [*names[-3:-1], "report"]
    assert sum(each.share for each in stages()) <= SuiteOptions().budget_minutes


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (SuiteOptions(budget_minutes=0), "--budget-minutes"),
        (SuiteOptions(only="core,sideways"), "sideways"),
        (SuiteOptions(rounds=0), "--rounds"),
        (SuiteOptions(load_s=-1), "--load-s"),
        (SuiteOptions(queries_goal_ms=0), "--queries-goal-ms"),
        (SuiteOptions(texts_count=1), "--texts-count"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(options: SuiteOptions, named: str) -> None:
    """An option that cannot be is one sentence that names it."""
    with pytest.raises(ImpossibleOption, match=named):
        run_suite(options)


def test_a_small_suite_from_end_to_end(
    package: Path, miniml_home: Path, tmp_path: Path, free_port: int
) -> None:
    """Every stage asked for leaves a record of its kind, and the page reports on all of them."""
    page = tmp_path / "bench.html"
    result = run_suite(
        SuiteOptions(
            package=str(package),
            only="core,load,slo",  # `test_backends_run` runs the first stage
            rounds=1,
            load_s=0.5,
            overload_s=0.5,
            warmup_s=0.1,
            cell_s=0.001,
            texts_count=32,
            queries_goal_ms=2000,
            reviews_goal_ms=2000,
            trials=1,
            port=free_port,
            output=page,
        )
    )
    documents = [json.loads(path.read_text()) for path in (miniml_home / "bench").glob("*.json")]
    seen = sorted(
        (each["kind"], each.get("loop", ""), each["scenario"].get("workload", ""))
        for each in documents
    )

    assert [one.fault for one in result.outcomes] == [""] * (len(stages()) - 1)
    assert result.exit_code == 0
    assert seen == [
        ("core", "", ""),
        ("load", "closed", "queries"),
        ("load", "closed", "reviews"),
        ("load", "open", "queries"),
        ("load", "open", "reviews"),
        ("slo", "open", "queries"),
        ("slo", "open", "reviews"),
    ]
    assert len({each["package_digest"] for each in documents}) == 1
    (report,) = (one.result for one in result.outcomes if one.stage == "report")
    assert len(report.evidence) == len(documents)
    assert "<svg" in page.read_text()
