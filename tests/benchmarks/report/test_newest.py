"""Of many records the page takes the newest of each subject, whole ones before those cut short."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ImpossibleOption, NoRecord
from benchmarks.report.newest import newest_of
from benchmarks.report.options import ReportOptions
from benchmarks.report.records import Record, parse_record
from benchmarks.report.run import write_report

marks = st.tuples(
    st.sampled_from(["load", "slo", "core"]),
    st.sampled_from(["open", "closed"]),
    st.sampled_from(["reviews", "queries"]),
    st.sampled_from(["a", "b", ""]),
    st.booleans(),
)


def record(place: int, mark: tuple[Any, ...]) -> Record:
    """The record of minute *place*."""
    kind, loop, workload, digest, partial = mark
    return parse_record(
        {
            "kind": kind,
            "schema_version": 1,
            "loop": loop,
            "scenario": {"workload": workload},
            "machine": {"cpu": "x", "cores": 2},
            "versions": {},
            "commit": "",
            "package_digest": digest,
            "recorded_at": f"2026-01-01T00:{place:02d}:00+00:00",
            "partial": partial,
        },
        f"r{place}",
    )


@given(st.lists(marks, min_size=1, max_size=30), st.randoms())
def test_each_subject_has_its_newest(drawn: list[tuple[Any, ...]], chance: Any) -> None:
    """One a subject, of the last package; nothing newer, and nothing whole where it is cut short."""
    records = [record(place, mark) for place, mark in enumerate(drawn)]
    shuffled = list(records)
    chance.shuffle(shuffled)
    found = newest_of(shuffled)

    last = next((mark[3] for mark in reversed(drawn) if mark[3]), None)
    ours = [each for each in records if each.document["package_digest"] == last]
    subjects = {each.certificate.name: drawn[records.index(each)][:3] for each in ours}
    chosen = {subjects[each.certificate.name]: each.certificate for each in found}
    assert len(chosen) == len(found)
    assert set(chosen) == set(subjects.values())
    for each in ours:
        said, best = each.certificate, chosen[subjects[each.certificate.name]]
        assert (not best.partial, best.recorded_at) >= (not said.partial, said.recorded_at)


def test_the_page_of_the_newest(
    document_of: Callable[[str], dict[str, Any]], miniml_home: Path, tmp_path: Path
) -> None:
    """`--newest` finds its records below the home, and says so when there is none or one is named."""
    page = tmp_path / "bench.html"
    with pytest.raises(NoRecord, match="holds no record"):
        write_report(ReportOptions(newest=True, output=page))
    with pytest.raises(ImpossibleOption, match="--newest"):
        write_report(ReportOptions(newest=True, records=("a.json",), output=page))
    for place, kind in enumerate(("core", "core", "peers", "load")):
        document = {**document_of(kind), "package_digest": "d" * 64}
        path = miniml_home / "bench" / f"{place}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))

    kinds = [
        one.certificate.kind
        for one in write_report(ReportOptions(newest=True, output=page)).evidence
    ]

    assert sorted(kinds) == ["core", "load", "peers"]
    assert page.exists()
