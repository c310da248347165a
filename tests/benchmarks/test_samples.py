"""What a client writes is what its watcher reads, while it runs and when it was killed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.samples import SampleFile, SampleReader, SampleRow, read_end, rows_path

rows = st.builds(
    SampleRow,
    body=st.integers(0, 2**32 - 1),
    sent_s=st.floats(0, 1e6),
    latency_ms=st.floats(0, 1e6),
    late_ms=st.floats(0, 1e4, width=32) | st.just(math.inf),
    status=st.integers(0, 599),
    tokenize_ms=st.floats(0, 100, width=32),
    queue_ms=st.floats(0, 100, width=32),
    infer_ms=st.floats(0, 100, width=32),
)


@given(st.lists(st.lists(rows, max_size=20), max_size=5))
def test_every_row_is_read_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[SampleRow]]
) -> None:
    """However writing and reading take turns, the rows read are the rows written, in their order."""
    folder = tmp_path_factory.mktemp("samples")
    file, reader = SampleFile(folder), SampleReader(folder)
    seen: list[SampleRow] = []
    for part in parts:
        for row in part:
            file.add(*row)
        file.flush()
        seen += reader.new_rows()

    assert seen == [row for part in parts for row in part]
    assert read_end(folder) is None, "nobody said that it was over"
    file.end({"load_s": 1.0})
    assert read_end(folder) == {"load_s": 1.0}


def test_half_a_row_is_no_row(tmp_path: Path) -> None:
    """A client that was killed while it wrote leaves its whole rows readable."""
    file = SampleFile(tmp_path)
    for number in range(3):
        file.add(number, 0.5, 1.5, 0.0, 200, math.nan, math.nan, math.nan)
    file.flush()
    path = rows_path(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])

    assert [row.body for row in SampleReader(tmp_path).new_rows()] == [0, 1]
