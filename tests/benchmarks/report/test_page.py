"""The report loads nothing, says where each number is from, and comes out the same each time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ImpossibleOption, NoRecord
from benchmarks.peers.record import PeersRecord
from benchmarks.report.canvas import spread
from benchmarks.report.evidence import Evidence, gather
from benchmarks.report.expected import GPU_BACKENDS, MODELS, PEERS
from benchmarks.report.files import records_in
from benchmarks.report.findings import tails
from benchmarks.report.options import ReportOptions
from benchmarks.report.page import render_page
from benchmarks.report.records import parse_record, read_record
from benchmarks.report.results import render_results
from benchmarks.report.run import write_report
from benchmarks.report.sheets import GAP

ROOT = Path(__file__).parent.parent.parent.parent
EVIL = '<script>alert(1)</script> <img src="https://evil.example/x.png"> $x^2$'


class Page(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))


def evidence(*records: PeersRecord) -> tuple[Evidence, ...]:
    """Read back what they write."""
    documents = [json.loads(json.dumps(record.document())) for record in records]
    return gather([parse_record(document, f"r{n}") for n, document in enumerate(documents)])


@pytest.fixture
def seen(peers_record: Callable[..., PeersRecord]) -> tuple[Evidence, ...]:
    """One peers record."""
    return evidence(peers_record())


def test_the_page_loads_nothing(seen: tuple[Evidence, ...]) -> None:
    """No attribute and no style names an address; what SVG refers to is inside the page."""
    text = render_page(seen, usd_per_hour=1.0)
    loading = ("src", "href", "xlink:href", "data", "srcset", "action", "poster")
    named = [
        value for _, attrs in Page(text).tags for key, value in attrs.items() if key in loading
    ]

    assert text.count("<svg") >= 8
    assert all(value is not None and value.startswith("#") for value in named)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "img", "image"} & {tag for tag, _ in Page(text).tags}


def test_names_stay_text(peers_record: Callable[..., PeersRecord]) -> None:
    """Whatever a record calls things, the page shows it and never runs it."""
    record = peers_record()
    document = json.loads(json.dumps(record.document()))
    document["machine"]["cpu"] = EVIL
    document["peers"] = {**document["peers"], EVIL: EVIL}
    document["runs"] += [
        {**run, "peer": EVIL} for run in document["runs"] if run["peer"] == "plain-fastapi"
    ]
    text = render_page(gather([parse_record(document, EVIL)]), usd_per_hour=1.0)

    assert "<script" not in text
    assert "evil.example" in text
    assert not [tag for tag, _ in Page(text).tags if tag in ("script", "img")]


def test_equal_records_give_equal_bytes(seen: tuple[Evidence, ...]) -> None:
    """Neither the page nor the tables have a clock or chance in them."""
    assert render_page(seen, usd_per_hour=1.0) == render_page(seen, usd_per_hour=1.0)
    assert render_results(seen, usd_per_hour=1.0) == render_results(seen, usd_per_hour=1.0)


def test_committed_results_are_those_of_the_kept_records() -> None:
    """`docs/results.md` is what the records in the checkout say, to the byte."""
    kept = [read_record(path) for path in records_in(ROOT / "benchmarks" / "results")]
    made = render_results(gather(kept), usd_per_hour=1.0)

    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == made


def test_every_row_names_its_record(seen: tuple[Evidence, ...]) -> None:
    """Each number's row ends with a record, and the record with machine, commit, package, seed."""
    text = render_results(seen, usd_per_hour=1.0)
    systems = ("| miniml |", "| prototype |")
    rows = [line for line in text.splitlines() if line.startswith(systems) and GAP not in line]
    certificate = next(line for line in text.splitlines() if "| r0 |" in line)

    assert len(rows) >= 8
    assert all(row.endswith("| 1 |") for row in rows)
    assert all(
        word in certificate for word in ("a CPU", "abc1234", "d" * 12, "2026-01-01", "| 0 |")
    )


def test_what_is_not_measured_says_so() -> None:
    """Without a record every model, peer and GPU backend is there as a gap, on both workloads."""
    text = render_results((), usd_per_hour=1.0)

    for about in MODELS.values():
        assert about[1:] in text
    for system in (*GPU_BACKENDS, *PEERS):
        gaps = [row for row in text.splitlines() if row.startswith(f"| {system} |")]
        assert len(gaps) >= 2 * len(MODELS)
        assert all(GAP in row for row in gaps)


def test_a_measured_system_is_no_gap(seen: tuple[Evidence, ...]) -> None:
    """Who has a record has a number, and only the others say that they have none."""
    text = render_results(seen, usd_per_hour=1.0).split("\n## ")[1]
    rows = [row for row in text.splitlines() if row.startswith("| prototype |")]

    assert rows
    assert not any(GAP in row for row in rows)


def test_loops_never_share_a_table(seen: tuple[Evidence, ...]) -> None:
    """A table of a closed loop has connections, one of an open loop has goals, none has both."""
    tables = render_results(seen, usd_per_hour=1.0).split("\n### ")

    assert any("connections" in table for table in tables)
    assert not any("32 connections" in table and "p99 within" in table for table in tables)


def test_latency_stands_beside_its_cost(seen: tuple[Evidence, ...]) -> None:
    """A closed loop's row has the CPU time and the memory of all the server's processes."""
    text = render_results(seen, usd_per_hour=1.0)
    _, _, table = text.partition("closed loop: queries, latency and cost\n\n")
    headings, _, *rows = (line.split(" | ") for line in table.partition("\n\n")[0].splitlines())

    assert len(rows) == 3
    for row in rows:
        name = row[0].removeprefix("| ").strip("* ")
        assert float(row[headings.index("CPU ms a request")].strip("* ")) == len(name)
        assert row[headings.index("all processes MB")].strip("* ") == "1,000"


def test_a_dearer_machine_costs_as_much_more(seen: tuple[Evidence, ...]) -> None:
    """The price of a million texts is the price of an hour over the texts of an hour."""
    one, ten = (
        [
            float(row.split("|")[-3])
            for row in render_results(seen, usd_per_hour=price).splitlines()
            if row.startswith("| prototype |") and "connections" in row and " x |" in row
        ]
        for price in (1.0, 10.0)
    )

    assert one
    assert ten == pytest.approx([10 * cost for cost in one], abs=0.06)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=4000))
def test_tails_are_numpys_nearest_rank(latencies_ms: list[float]) -> None:
    """A percentile is numpy's, and is only there when three samples lie beyond it."""
    for percent, shown in tails(latencies_ms).items():
        beyond = len(latencies_ms) - math.ceil(percent / 100 * len(latencies_ms))
        assert (shown is None) == (beyond < 3)
        if shown is not None:
            assert shown == np.percentile(latencies_ms, percent, method="inverted_cdf")


@given(st.lists(st.floats(-100, 100), max_size=20), st.floats(0.1, 20))
def test_labels_keep_their_order_and_distance(places: list[float], gap: float) -> None:
    """Moved labels lie a gap apart, in order, and are not moved when they already do."""
    moved = spread(sorted(places), gap)

    assert all(b - a >= gap - 1e-6 for a, b in pairwise(moved))
    assert spread(moved, gap) == pytest.approx(moved, abs=1e-6)


def test_report_writes_what_it_is_told(
    peers_record: Callable[..., PeersRecord], tmp_path: Path
) -> None:
    """--keep compresses into the folder and reports on all of it; a second time changes nothing."""
    path = peers_record().write(tmp_path / "first.json")
    options = ReportOptions(
        records=(str(path),),
        output=tmp_path / "bench.html",
        results=tmp_path / "results.md",
        kept=tmp_path / "kept",
        keep=True,
    )
    write_report(options)
    kept = (tmp_path / "results.md").read_bytes()
    again = ReportOptions(
        output=tmp_path / "b.html", results=tmp_path / "r.md", kept=tmp_path / "kept"
    )
    result = write_report(again)

    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["first.json.gz"]
    assert (tmp_path / "r.md").read_bytes() == kept
    assert (tmp_path / "b.html").read_bytes() == (tmp_path / "bench.html").read_bytes()
    assert result.document()["records"] == ["first"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (ReportOptions(usd_per_hour=0), ImpossibleOption),
        (ReportOptions(keep=True), ImpossibleOption),
        (ReportOptions(records=("missing.json",)), NoRecord),
        (ReportOptions(kept=Path("no-such-folder")), NoRecord),
    ],
)
def test_what_cannot_be_is_refused(options: ReportOptions, error: type[Exception]) -> None:
    """A free machine, nothing to keep, a missing file, an empty folder."""
    with pytest.raises(error):
        write_report(options)
