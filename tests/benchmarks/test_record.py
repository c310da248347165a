"""A record says what was seen: percentiles come from samples, and nothing is lost on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.record import LoadRecord, Sample, commit, machine, percentile, versions

latencies = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200)


def a_record(samples: tuple[Sample, ...]) -> LoadRecord:
    """A record of *samples* with everything else fixed."""
    return LoadRecord(
        scenario={"users": 4, "texts_per_call": 2},
        samples=samples,
        duration_s=10.0,
        warmup_s=2.0,
        client_cpu_s=1.2,
        package_digest="d" * 64,
        server={},
        machine=machine(),
        versions=versions(),
        commit=commit(),
        recorded_at="2026-01-01T00:00:00+00:00",
    )


@given(latencies, st.floats(0.1, 100))
def test_percentile_was_seen_and_splits_the_values(values: list[float], percent: float) -> None:
    """A percentile is one of the values; at least that share of them is not above it."""
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < percent / 100 * len(values)


def test_percentile_of_nothing_is_an_error() -> None:
    """No samples give no number."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 1e4), st.booleans()), min_size=1))
def test_every_request_is_either_answered_or_an_error(
    rows: list[tuple[float, float, bool]],
) -> None:
    """Errors and answered requests add up to the samples; errors never count as rate."""
    record = a_record(
        (
            Sample(sent_s=0.0, latency_ms=1.0, ok=True),
            *(Sample(sent_s=sent, latency_ms=ms, ok=ok) for sent, ms, ok in rows),
        )
    )
    numbers = record.summary()

    assert record.errors + len(record.latencies_ms) == len(record.samples)
    assert numbers["requests_per_s"] == round(len(record.latencies_ms) / 10, 2)
    assert numbers["texts_per_s"] == round(2 * len(record.latencies_ms) / 10, 2)


def test_record_on_disk_keeps_every_sample(tmp_path: Path) -> None:
    """The file holds each sample and the machine it was seen on, and no half file stays beside."""
    samples = tuple(Sample(sent_s=i / 10, latency_ms=1.5 * i + 1, ok=i % 7 > 0) for i in range(50))
    path = a_record(samples).write(tmp_path / "deep" / "record.json")
    document = json.loads(path.read_text())

    assert [
        Sample(sent_s=sent, latency_ms=ms, ok=bool(ok)) for sent, ms, ok in document["samples"]
    ] == list(samples)
    assert document["machine"]["cores"] >= 1
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
