"""Records survive the way to disk and back; what is no record is refused with one sentence."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.errors import NoRecord
from benchmarks.peers.record import PeersRecord
from benchmarks.report.evidence import by_model, gather
from benchmarks.report.files import curated, keep, read_document, records_in
from benchmarks.report.findings import tails
from benchmarks.report.kinds import READERS, findings_of
from benchmarks.report.packing import pack, unpack
from benchmarks.report.records import VERSIONS, parse_record, read_record
from benchmarks.report.sheets import speed_sheets

ROOT = Path(__file__).parent.parent.parent.parent
KEPT = ROOT / "benchmarks" / "results"
Read = Callable[[str], dict[str, Any]]
numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))
rows = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), max_size=150)
)
documents = st.recursive(
    st.one_of(numbers, st.text(), st.none(), st.booleans(), st.lists(numbers, max_size=150), rows),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(documents)
def test_unpacking_undoes_packing(document: object) -> None:
    """Whatever is packed comes back, when nothing in it has more than three decimals."""
    assert unpack(json.loads(json.dumps(pack(document)))) == document


@example([0.0005] * 64)
@given(st.lists(st.floats(0, 1e6), min_size=64, max_size=200))
def test_packing_rounds_to_three_decimals(values: list[float]) -> None:
    """What has more is rounded, and by no more than that."""
    assert unpack(pack(values)) == [round(value, 3) for value in values]


@pytest.mark.parametrize("kind", VERSIONS)
def test_kept_records_are_read_as_they_were(kind: str, document_of: Read, tmp_path: Path) -> None:
    """read(keep(x)) is x to three decimals, twice the same bytes, and what it shows is the same."""
    document = document_of(kind)
    path = keep(document, tmp_path / "kept.json.gz")
    again = read_document(path)

    assert again == unpack(pack(document))
    assert keep(again, tmp_path / "again.json.gz").read_bytes() == path.read_bytes()
    assert again["kind"] == kind
    assert findings_of(read_record(path)) == findings_of(parse_record(again, "kept"))


@pytest.mark.parametrize("kind", VERSIONS)
def test_curating_changes_nothing_that_is_shown(kind: str, document_of: Read) -> None:
    """A curated record shows the same, of the same package, and holds no path and no example text."""
    document = document_of(kind)
    document["server"] = {
        "name": "demo",
        "examples": [{"text": "a secret"}],
        "lineage": {"checkpoint": "/srv/somebody/checkpoint"},
        "gates": {"label_flip_rate": 0.01, "candidates": ["/srv/somebody"]},
    }
    document["written"] = "/srv/somebody/serve.yaml"
    whole, kept = (parse_record(one, "r") for one in (document, curated(document)))

    assert findings_of(kept) == findings_of(whole)
    assert kept.certificate.package.get("name") == "demo"
    assert "somebody" not in json.dumps(kept.document)
    assert "secret" not in json.dumps(kept.document)


def test_a_record_shows_its_own_summary(peers_record: Callable[..., PeersRecord]) -> None:
    """The report's rates and percentiles are those that the benchmark itself derives."""
    record = peers_record()
    found = findings_of(parse_record(record.document(), "peers"))
    closed = [f for f in found.findings if f.loop == "closed"]
    opened = [f for f in found.findings if f.loop == "open"]

    for finding in closed:
        summary = record.summary(finding.system, finding.workload)
        assert finding.rate == pytest.approx(summary["texts_per_s"], abs=0.01)
        assert finding.errors == summary["errors"]
    for finding in opened:
        assert list(finding.rates) == record.rates(finding.system, finding.workload)
    assert len(closed) == len(opened) == 2 * len(record.peers)


def test_a_load_shows_its_own_summary(document_of: Read) -> None:
    """One load: the rate, the percentiles and the errors of its own summary."""
    document = document_of("load")
    (finding,) = findings_of(parse_record(document, "load")).findings
    summary, shown = document["summary"], tails(finding.latencies_ms)

    assert finding.rate == summary["texts_per_s"]
    assert (shown[50.0], shown[99.0]) == (summary["p50_ms"], summary["p99_ms"])
    assert finding.errors == summary["errors"]
    assert finding.samples == summary["requests"]


def test_a_search_shows_its_answer_and_its_doubt(document_of: Read) -> None:
    """The highest rate, between where all held and where none did; a rate's trials are one point."""
    found = findings_of(parse_record(document_of("slo"), "slo"))
    (finding,), (curve,) = found.findings, found.curves

    assert (finding.rates, finding.reach) == ((80.0,), (60.0, 100.0))
    assert [(rate, held) for rate, _, held in curve.points()] == [
        (30.0, True),
        (40.0, False),
        (50.0, False),
    ]
    assert found.samples == 10 * (30 + 50 + 3 * 40)
    assert sum(len(trial.statuses) for trial in finding.trials) == 3 * 400


@pytest.mark.parametrize(("always_per_s", "shown_per_s"), [(30.0, 30.0), (0.0, 40.0)])
def test_a_search_cut_short_shows_what_is_sure(
    document_of: Read, always_per_s: float, shown_per_s: float
) -> None:
    """Where every trial held, with the tails of that rate; a first guess only where none did."""
    document = document_of("slo")
    result = {**document["result"], "settled": False, "always_per_s": always_per_s}
    found = findings_of(parse_record({**document, "result": result}, "slo"))
    (finding,), (curve,) = found.findings, found.curves

    assert finding.rates == (2 * shown_per_s,)
    assert curve.highest == (shown_per_s,)
    assert {trial.rate_per_s for trial in finding.trials} == {shown_per_s}
    assert "not finished" in finding.note


def test_backends_show_their_best_layout_and_why_one_is_missing(document_of: Read) -> None:
    """One finding a variant, the served one also over HTTP; every run is a sample."""
    found = findings_of(parse_record(document_of("backends"), "backends"))

    assert [(f.system, f.loop, f.ours) for f in found.findings] == [
        ("onnx-cpu fp32", "engine", False),
        ("onnx-cpu package: int8-row-wise", "engine", True),
        ("onnx-cpu package: int8-row-wise", "closed", True),
    ]
    assert {f.agreement.agreed for f in found.findings if f.agreement} == {63}
    assert "GPU" in found.missing["engine", "torch-cuda fp16"]
    assert found.samples == 6 * 4 + 3 * 400


def test_every_kind_has_a_reader() -> None:
    """What is said to be read is read."""
    assert set(READERS) == set(VERSIONS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "song"}, "'song'"),
        ({"kind": None}, "None"),
        ({"schema_version": 99}, "99"),
        ({"schema_version": None}, "None"),
        ({"scenario": None}, "scenario"),
        ({"machine": {}}, "cpu"),
    ],
)
def test_what_is_no_record_is_refused(
    change: dict[str, Any], named: str, document_of: Read
) -> None:
    """Unknown kinds, later versions and gaps are one sentence that names them."""
    with pytest.raises(NoRecord, match=named):
        parse_record({**document_of("load"), **change}, "a-file")


@pytest.mark.parametrize("gap", ["samples", "duration_s", "scenario"])
def test_a_gap_inside_is_refused(gap: str, document_of: Read) -> None:
    """A document without what its kind needs names the gap, not a line of ours."""
    document = document_of("load")
    if gap == "scenario":
        document[gap] = {}
    else:
        del document[gap]
    with pytest.raises(NoRecord, match="a-file is not a load record"):
        findings_of(parse_record(document, "a-file"))


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[1]", gzip.compress(b"{}", mtime=0)[:9]],
    ids=["empty", "text", "a list", "half a gzip"],
)
def test_a_file_that_is_no_record_is_refused(content: bytes, tmp_path: Path) -> None:
    """Half a file, another file, no file: one sentence with its name."""
    for name in ("a.json", "a.json.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NoRecord, match=re.escape(name)):
            read_record(tmp_path / name)
    with pytest.raises(NoRecord, match="missing"):
        read_record(tmp_path / "missing.json")


def test_a_run_cut_short_is_partial(peers_record: Callable[..., PeersRecord]) -> None:
    """A record says so when its run was interrupted."""
    document = peers_record().document()
    cut: dict[str, Any] = {**document, "scenario": {**peers_record().scenario, "complete": False}}

    assert not parse_record(document, "whole").certificate.partial
    assert parse_record(cut, "cut").certificate.partial
    assert parse_record({**document, "partial": True}, "cut").certificate.partial


def test_kept_records_are_small_and_name_no_machine() -> None:
    """All that is committed reads, weighs under 5 MB, and holds no path of where it was made."""
    paths = records_in(KEPT)
    pattern = re.compile(r"/(?:root|home/\w+|work|tmp)/")
    for path in paths:
        findings_of(read_record(path))
        assert not pattern.search(json.dumps(read_document(path))), path.name

    assert sum(path.stat().st_size for path in paths) < 5_000_000


def test_engines_are_compared_at_their_best(document_of: Read) -> None:
    """However many lanes and texts a batch each likes: ours is so many times every other."""
    document = document_of("backends")
    for one in document["speeds"]:
        one["batch"] = 16 if one["variant"] == "onnx-cpu fp32" else 1
    evidence = gather([parse_record(document, "backends")])
    (model,) = (model for model in by_model(evidence) if model.records)
    (sheet,) = (s for s in speed_sheets(model, "engine", 1.0) if s.title.endswith(": queries"))
    cells = {row.cells[0]: row.cells[sheet.headings.index("miniml is")] for row in sheet.rows}

    assert cells["onnx-cpu fp32"] == "2.40 x"
    assert cells["onnx-cpu package: int8-row-wise"] == ""
