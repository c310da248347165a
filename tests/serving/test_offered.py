"""Laws of what a replica reports to the autoscaler: work is counted once, in replica-seconds."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core import Core
from serving.errors import Overloaded
from serving.lanes import Lanes
from serving.offered import Offered, Reporter, together
from serving.package import Package
from serving.settings import ServeSettings
from serving.work import Tally

works = st.lists(st.lists(st.floats(0.01, 1e4), max_size=5), max_size=10)


class Counted:
    """What a reporter reads, at hand."""

    def __init__(self, lanes: int = 2) -> None:
        self.offered = Offered()
        self.tally = Tally()
        self.queued_ms = 0.0
        self.reporter = Reporter(
            self.offered,
            lanes=lanes,
            tally=lambda: self.tally,
            queued_ms=lambda: self.queued_ms,
            now_s=0.0,
        )


@given(works, st.integers(1, 8))
def test_what_came_is_reported_once(came: list[list[float]], lanes: int) -> None:
    """Over all reports, load times seconds is the work that came, and every text is in one."""
    counted = Counted(lanes)
    reports = []
    for second, works_ms in enumerate(came, 1):
        counted.offered.add(works_ms)
        reports.append(counted.reporter.report(float(second)))

    assert sum(report["texts"] for report in reports) == sum(map(len, came))
    assert sum(report["load"] for report in reports) == pytest.approx(
        sum(map(sum, came)) / 1e3 / lanes
    )


def test_batches_make_work_cheaper() -> None:
    """When batches take half of what their texts would by themselves, so much work is reported."""
    counted = Counted(lanes=1)
    for second in range(1, 60):
        counted.offered.add([1000.0])
        counted.queued_ms = 400.0
        counted.tally = Tally(
            batches=10 * second, texts=100 * second, busy_s=0.5 * second, work_ms=1000.0 * second
        )
        report = counted.reporter.report(float(second))

    assert report["load"] == pytest.approx(0.5, rel=0.01)
    assert report["waiting_s"] == pytest.approx(0.2, rel=0.01)
    assert report["batch_ms"] == pytest.approx(50.0)


def test_nothing_came() -> None:
    """An idle replica reports nothing, however often it is asked, even twice at once."""
    counted = Counted()
    for now_s in (1.0, 2.0, 2.0):
        assert counted.reporter.report(now_s) == dict.fromkeys(
            ("load", "texts", "waiting_s", "batch_ms"), 0.0
        )


def test_refused_work_is_work_that_came(package: Package) -> None:
    """What a full queue refuses, before it is read or after, counts as what it takes in."""

    async def run() -> tuple[int, int, float]:
        settings = ServeSettings(package="p", max_queue_ms=0.001, cache_bytes=0)
        core = Core(package, Lanes(count=1, threads=1), settings)
        calls = [core.ask([f"text {place} is good"] * 100, None) for place in range(40)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = sum(isinstance(outcome, Overloaded) for outcome in outcomes)
        texts = core.report()["texts"]
        await core.close()
        return len(calls), refused, texts

    calls, refused, texts = asyncio.run(run())

    assert 0 < refused < calls
    assert texts == 100 * calls


@given(st.lists(st.tuples(*[st.floats(0, 1e3)] * 4), min_size=1, max_size=5))
def test_packages_that_share_the_cores_report_as_one(told: list[tuple[float, ...]]) -> None:
    """Work, texts and waiting add up, a canary's too; a batch is as long as the longest."""
    names = ("load", "texts", "waiting_s", "batch_ms")
    one = together([dict(zip(names, each, strict=True)) for each in told])
    *added, batches = zip(*told, strict=True)

    assert [one[name] for name in names[:3]] == [sum(each) for each in added]
    assert one["batch_ms"] == max(batches)
