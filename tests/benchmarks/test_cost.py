"""Laws of what texts cost: of money, of load, of whole instances, and of what is only assumed."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.cost.model import Fleet, break_even, rate_to_match
from benchmarks.cost.options import CostOptions
from benchmarks.cost.page import render_page
from benchmarks.cost.prices import read_prices
from benchmarks.cost.record import CostReport
from benchmarks.cost.run import run_cost
from benchmarks.cost.tables import sentences
from benchmarks.errors import BenchmarkError, ImpossibleOption, NoRecord
from benchmarks.report.files import read_document
from benchmarks.report.numbers import dollars

KEPT = Path(__file__).parent.parent.parent / "benchmarks/results"
prices_usd = st.floats(0.01, 50)
rates_per_s = st.floats(1, 1e5)
shares = st.floats(0.05, 1)


def fleets(at_least: int = 4) -> st.SearchStrategy[Fleet]:
    """Of any type that may be."""
    return st.builds(
        Fleet,
        usd_per_hour=prices_usd,
        rate_per_s=rates_per_s,
        used=shares,
        at_least=st.integers(1, at_least),
    )


@given(fleets(), st.floats(1.001, 10), st.floats(0.1, 1e6))
def test_dearer_instances_make_dearer_texts(fleet: Fleet, times: float, load: float) -> None:
    """A text costs so many times as much as its instances do, at any load."""
    dearer = Fleet(
        usd_per_hour=fleet.usd_per_hour * times,
        rate_per_s=fleet.rate_per_s,
        used=fleet.used,
        at_least=fleet.at_least,
    )

    assert math.isclose(dearer.full_usd, fleet.full_usd * times)
    assert math.isclose(dearer.usd_per_million(load), fleet.usd_per_million(load) * times)


@given(prices_usd, rates_per_s, shares, shares)
def test_more_use_makes_cheaper_texts(usd: float, rate: float, less: float, more: float) -> None:
    """A text costs less, the more of an instance is used: the price over the share."""
    assume(less < more)
    one = Fleet(usd_per_hour=usd, rate_per_s=rate, used=less)
    other = Fleet(usd_per_hour=usd, rate_per_s=rate, used=more)

    assert other.full_usd < one.full_usd
    assert math.isclose(one.full_usd * less, other.full_usd * more)


@given(fleets(), st.floats(0.1, 1e6), st.floats(0.1, 1e6))
def test_a_load_has_the_instances_that_it_needs(fleet: Fleet, load: float, more: float) -> None:
    """As many as carry it and no more; more load never costs less, and no text less than in a full one."""
    count = fleet.instances(load)

    assert count * fleet.each_per_s >= load * (1 - 1e-9)
    assert count == fleet.at_least or (count - 1) * fleet.each_per_s < load
    assert fleet.hourly_usd(load) <= fleet.hourly_usd(load + more)
    assert fleet.usd_per_million(load) >= fleet.full_usd * (1 - 1e-9)


@given(fleets(), fleets(), st.floats(0, 1), st.floats(1.0001, 50))
def test_the_curves_cross_at_the_break_even(
    fleet: Fleet, other: Fleet, below: float, beyond: float
) -> None:
    """Below the first crossing the other costs no less, above the last it always costs less."""
    found = break_even(fleet, other)
    assume(found is not None)
    assert found is not None  # for the reader of types

    assert 0 <= found.first_per_s <= found.always_per_s
    early = found.first_per_s * below * 0.9999
    if early > 0:
        assert other.hourly_usd(early) >= fleet.hourly_usd(early)
    late = max(found.always_per_s, 1e-3) * beyond
    assert other.hourly_usd(late) < fleet.hourly_usd(late)
    if found.always_per_s > 0:  # just before it one of the two had an instance less
        before = found.always_per_s * (1 - 1e-9)
        assert other.hourly_usd(before) >= fleet.hourly_usd(before)


@given(fleets(), fleets())
def test_of_two_fleets_at_most_one_pays_for_good(fleet: Fleet, other: Fleet) -> None:
    """No two are each the cheaper one, and none is cheaper than itself."""
    assert not (break_even(fleet, other) and break_even(other, fleet))
    assert break_even(fleet, fleet) is None


@given(fleets(1), st.floats(1.01, 100))
def test_at_the_rate_to_match_a_text_costs_the_same(fleet: Fleet, times: float) -> None:
    """An instance of another price that does so much costs as much a text."""
    usd = fleet.usd_per_hour * times
    matching = Fleet(
        usd_per_hour=usd, rate_per_s=rate_to_match(usd, fleet), used=fleet.used, at_least=1
    )

    assert math.isclose(matching.full_usd, fleet.full_usd)


def cost(tmp_path: Path, **more: Any) -> CostReport:
    """Of the demo's record, its page written to *tmp_path*."""
    return run_cost(CostOptions(output=tmp_path / "cost.html", **more))


def test_what_is_measured_is_said_to_be_and_nothing_else(tmp_path: Path) -> None:
    """Rates of CPUs are the record's by cores and called assumed; GPUs' are unknown, and so their cost."""
    report = cost(tmp_path)
    rows = {row.name: row for row in report.rows}
    measured = report.finding.rate
    cores = report.certificate.machine["cores"]

    assert {row.capacity.basis for row in report.rows} == {"assumed", "not measured"}
    for row in rows.values():
        if row.capacity.instance.gpu:
            assert row.fleet is None
            assert report.must_do_per_s(row)
        else:
            assert measured is not None
            assert row.capacity.rate_per_s == measured * row.capacity.instance.vcpus / cores
    assert rows["m7g.large"].capacity.rate_per_s == measured  # two cores, as the record's machine
    assert list(rows)[-3:] == ["g4dn.xlarge", "g5.xlarge", "g6.xlarge"]


def test_a_price_and_a_rate_that_are_given_are_taken(tmp_path: Path) -> None:
    """They stand in the document with where they are from, and a GPU that does enough pays."""
    must = cost(tmp_path).document()["instances"][-1]["must_do_texts_per_s"]
    report = cost(tmp_path, price=("m7i.xlarge=0.01",), gpu_rate=("g6.xlarge=9e9",))
    rows = {row["name"]: row for row in report.document()["instances"]}

    assert rows["m7i.xlarge"]["usd_per_hour"] == 0.01
    assert rows["m7i.xlarge"]["price_source"] == "you"
    assert report.cheapest_cpu is not None
    assert report.cheapest_cpu.name == "m7i.xlarge"
    assert rows["g6.xlarge"]["texts_per_s_basis"] == "given"
    assert rows["g6.xlarge"]["break_even_texts_per_s"] > 0
    assert rows["g6.xlarge"]["must_do_texts_per_s"] > must  # it has a cheaper rival now
    assert rows["m7g.large"]["break_even_texts_per_s"] is None


def test_a_record_of_a_gpu_tells_of_that_gpu_alone(tmp_path: Path) -> None:
    """Its rate is that of the types with such a GPU; nobody knows what CPUs or other GPUs do."""
    document = read_document(KEPT / "demo-slo-queries-avx2.json.gz")
    document["machine"]["gpu"] = "NVIDIA A10G"
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    report = cost(tmp_path, record=path)

    known = [row for row in report.rows if row.fleet]
    assert [row.name for row in known] == ["g5.xlarge"]
    assert known[0].capacity.basis == "measured"
    assert known[0].capacity.rate_per_s == report.finding.rate
    assert report.cheapest_cpu is None
    assert report.break_even(known[0]) is None


def test_the_report_says_the_same_of_the_same_machine(tmp_path: Path) -> None:
    """At the full use of one core-for-core instance it is what `bench report` says for that price."""
    report = cost(tmp_path, utilisation_percent=100.0)
    row = next(row for row in report.rows if row.name == "m7g.large")

    assert row.fleet is not None
    assert f"{row.fleet.full_usd:.2f}" == dollars(0.0816, report.finding.rate)


def test_a_closed_loop_is_no_promise(tmp_path: Path) -> None:
    """A record without a latency goal is priced, and said to keep none; one with a goal is preferred."""
    closed = cost(tmp_path, record=KEPT / "demo-core-avx2.json.gz")
    peers = cost(tmp_path, record=KEPT / "demo-peers-avx2.json.gz", workload="reviews")

    assert any("keeps no latency goal" in said for said in sentences(closed))
    assert peers.finding.goal_ms == 500.0
    assert peers.finding.workload == "reviews"
    assert not any("keeps no latency goal" in said for said in sentences(peers))


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    """Nothing in it is fetched, and every type is."""
    report = cost(tmp_path, gpu_rate=("g5.xlarge=6000",))
    page = (tmp_path / "cost.html").read_text(encoding="utf-8")

    assert page == render_page(report)
    assert "<svg" in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert all(row.name in page for row in report.rows)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"price": ("m7g.xlarge",)}, "--price is NAME=NUMBER"),
        ({"price": ("m7g.xlarge=-1",)}, "above 0"),
        ({"price": ("m7g.xlarge=nan",)}, "above 0"),
        ({"price": ("m9z.xlarge=1",)}, "there is no m9z.xlarge"),
        ({"gpu_rate": ("g9.xlarge=1",)}, "there is no g9.xlarge"),
        ({"utilisation_percent": 0.0}, "--utilisation-percent"),
        ({"at_least": 0}, "--at-least"),
        ({"workload": "poems"}, "no rate of miniml's server of the workload 'poems'"),
        ({"record": KEPT / "demo-backends-avx2.json.gz"}, "no rate of miniml's server"),
        ({"prices": Path("nowhere.toml")}, "cannot be read"),
    ],
)
def test_what_cannot_be_priced_is_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    """Each with one sentence that names what is wrong."""
    with pytest.raises((ImpossibleOption, NoRecord), match=says):
        cost(tmp_path, **more)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("usd_per_hour = 0.0816", "usd_per_hour = -1"),
        ("vcpus = 2", 'vcpus = "two"'),
        ('name = "m7g.large"', 'name = "m7g.xlarge"'),
        ('source = "article"', 'source = "hearsay"'),
        ('chip = "Graviton3"', "chips = 1"),
        ('as_of = "2026-11-27"', ""),
        ("[sources]", "[sources"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """A table of one's own is read like the one that comes along, or not at all."""
    path = Path(__file__).parent.parent.parent / "benchmarks/cost/prices.toml"
    text = path.read_text(encoding="utf-8")
    mine = tmp_path / "prices.toml"
    mine.write_text(text, encoding="utf-8")
    assert read_prices(mine) == read_prices(None)

    assert old in text
    mine.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BenchmarkError, match="no table of prices"):
        read_prices(mine)
