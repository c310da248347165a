"""What is shown while a load runs is what its record will say; what was the client's fault is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bottleneck import (
    MOST_CORE_SHARE,
    MOST_LAG_MS,
    client_fault,
    rate_fault,
)
from benchmarks.record import percentile
from benchmarks.samples import SampleRow
from benchmarks.watching import LiveNumbers
from benchmarks.wire import ClientProcess, Shot, WireRun

rows = st.builds(
    SampleRow,
    body=st.just(0),
    sent_s=st.floats(0, 10),
    latency_ms=st.floats(0.1, 1e4),
    late_ms=st.just(0.0),
    status=st.sampled_from([0, 200, 200, 200, 429]),
)


def a_run(
    *, cpu_s: float = 0.1, lag_ms: float = 0.1, latency_ms: float = 10.0, late_ms: float = 0.0
) -> WireRun:
    """100 requests in 10 s, one each 0.1 s, sent *late_ms* after they were due."""
    shots = tuple(
        Shot(sent_s=number / 10, latency_ms=latency_ms, status=200, texts=1, late_ms=late_ms)
        for number in range(100)
    )
    return WireRun(
        shots=shots,
        duration_s=10.0,
        requests=100,
        load_s=10.0,
        client_cpu_s=cpu_s,
        clients=(ClientProcess(cpu_s=cpu_s, lags_ms=(lag_ms,) * 500),),
    )


@given(st.lists(st.lists(rows, max_size=20), max_size=6), st.floats(0, 5))
def test_live_numbers_are_those_of_all_rows_so_far(
    parts: list[list[SampleRow]], warmup_s: float
) -> None:
    """Looked at in however many parts, the p99 is of all answers after the warm-up, errors are all."""
    numbers = LiveNumbers(warmup_s)
    for second, part in enumerate(parts):
        numbers.add(part, float(second))
    every = [row for part in parts for row in part]
    measured = [r.latency_ms for r in every if r.status == 200 and r.sent_s >= warmup_s]

    assert numbers.answered + numbers.errors == len(every)
    assert numbers.errors == sum(row.status != 200 for row in every)
    if measured:
        assert f"p99 {percentile(measured, 99):.1f} ms" in numbers.line()
    else:
        assert "p99" not in numbers.line()


@given(st.integers(1, 200), st.integers(3, 20))
def test_the_live_rate_is_of_the_last_seconds(per_s: int, seconds: int) -> None:
    """A steady rate is shown as it is, however long it has been going on."""
    numbers = LiveNumbers(0.0)
    row = SampleRow(body=0, sent_s=1.0, latency_ms=1.0, late_ms=0.0, status=200)
    for second in range(seconds):
        numbers.add([row] * per_s, float(second))

    assert numbers.rate_per_s == per_s


def test_a_client_that_takes_its_core_is_told() -> None:
    """Just below the bound it is not the bottleneck, just above it is, whichever process it was."""
    quiet = a_run(cpu_s=10 * (MOST_CORE_SHARE - 0.01))
    loud = a_run(cpu_s=10 * (MOST_CORE_SHARE + 0.01))

    assert client_fault(quiet) == ""
    assert "of a core" in client_fault(loud)


def test_a_client_whose_clock_is_late_is_told() -> None:
    """A lag counts beyond 5 ms and beyond a tenth of the tail it would be lost in."""
    assert client_fault(a_run(lag_ms=MOST_LAG_MS - 0.1)) == ""
    assert "late by 6 ms" in client_fault(a_run(lag_ms=MOST_LAG_MS + 1))
    assert client_fault(a_run(lag_ms=MOST_LAG_MS + 1, latency_ms=100)) == ""
    assert "late by 11 ms" in client_fault(a_run(lag_ms=11, latency_ms=100))


def test_a_rate_is_delivered_within_two_percent_or_told() -> None:
    """What went out late, after the window or never is missed; one request more or less is not."""
    assert rate_fault(a_run(), 10) == ""
    assert rate_fault(a_run(), 10.1) == ""
    assert "10.0 requests/s went out where 11.0" in rate_fault(a_run(), 11)
    assert "9.5 requests/s" in rate_fault(a_run(late_ms=500), 10)
    assert "0.0 requests/s" in rate_fault(a_run(late_ms=float("inf")), 10)
