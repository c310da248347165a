"""A record says what was seen: percentiles come from samples, and nothing is lost on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.record import machine, percentile, write_document

latencies = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200)


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


def test_a_written_record_is_whole_and_alone(tmp_path: Path) -> None:
    """The file holds the document, and no half file stays beside it."""
    here = machine()
    document = {"kind": "load", "machine": here, "samples": [[0.0, 1.5, 200, 0.0]]}
    path = write_document(document, tmp_path / "deep" / "record.json")

    assert json.loads(path.read_text()) == document
    assert here["cores"] >= 1
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
