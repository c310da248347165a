"""Weights, rates, ceilings, agreement: what `bench backends` derives from its samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.backends.http import server_of
from benchmarks.backends.measures import (
    AnswerAgreement,
    Roof,
    agreement,
    ceiling_texts_per_s,
    grid_lengths,
    length_weights,
    texts_per_s,
)
from benchmarks.backends.models import BACKENDS, YARDSTICK, line_up, make_graphs
from benchmarks.backends.record import BackendsRecord
from benchmarks.backends.speeds import GridRun
from benchmarks.backends.tables import ceiling_lines
from benchmarks.backends.torch_cpu import multiplies_bf16
from benchmarks.backends.variant import Layout, LoadJob, Variant, layouts
from benchmarks.geometry import Geometry

MINILM = Geometry(hidden=384, layers=6, inner=1536)
GRID = (16, 32)
BATCHES = (1, 4)
ROOF = Roof(precision="fp32", gflops=100.0, gb_per_s=10.0)
longest = st.integers(8, 600)


@settings(deadline=None)
@given(st.data(), longest)
def test_weights_share_out_every_text(data: st.DataObject, max_length: int) -> None:
    """They add up to one; no text is counted at a length that cuts it, nor at a needlessly long one."""
    lengths = data.draw(st.lists(st.integers(1, max_length), min_size=1, max_size=50))
    grid = grid_lengths(max_length)
    weights = length_weights(lengths, grid)

    assert list(weights) == list(grid) == sorted(set(grid))
    assert sum(weights.values()) == pytest.approx(1)
    for low, high in zip((0, *grid), grid, strict=False):
        share = sum(low < length <= high for length in lengths) / len(lengths)
        assert weights[high] == pytest.approx(share)


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.1, 50), st.floats(1.1, 9), st.sampled_from(BATCHES))
def test_a_rate_is_texts_over_time(share: float, ms: float, longer: float, batch: int) -> None:
    """All short: batch by time; the more long texts, the lower, never below all long."""
    cells = {(batch, 16): ms, (batch, 32): longer * ms}

    def rate(long: float) -> float:
        return texts_per_s(cells, {16: 1 - long, 32: long}, batch=batch, lanes=2)

    assert rate(0.0) == pytest.approx(2 * batch * 1e3 / ms)
    assert rate(0.0) > rate(share) > rate(1.0) == pytest.approx(rate(0.0) / longer)


@settings(deadline=None)
@given(st.floats(1, 1e4), st.floats(0.1, 1e3), st.integers(1, 64))
def test_the_ceiling_is_the_slower_of_two(gflops: float, gb_per_s: float, batch: int) -> None:
    """Neither multiplying nor reading the weights can go faster, and one of them just does."""
    roof = Roof(precision="int8", gflops=gflops, gb_per_s=gb_per_s)
    found = ceiling_texts_per_s(MINILM, {64: 1.0}, roof, batch=batch)
    products = gflops / MINILM.gop(64)
    reading = batch * gb_per_s * 1e9 / MINILM.weights

    assert found == pytest.approx(min(products, reading))


def test_agreement_counts_answers() -> None:
    """With itself it is whole; a flipped row, a moved probability and a broken one are seen."""
    right = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]], np.float32)
    flipped = right[:, ::-1].copy()
    broken = np.full_like(right, np.nan)

    same = agreement(right, right, right, "single_label")
    assert same == AnswerAgreement(asked=3, alone=3, together=3, max_probability_gap=0.0)
    found = agreement(right, right, flipped, "single_label")
    assert (found.alone, found.together) == (3, 0)
    assert found.max_probability_gap == pytest.approx(np.tanh(1), abs=1e-6)
    assert agreement(right, broken, right, "single_label").max_probability_gap == 1.0
    # Several labels: the set of those above one half, not the likeliest.
    moved = right + np.array([0.0, 0.1], np.float32)
    assert agreement(right - 0.05, moved - 0.05, right - 0.05, "multi_label").alone == 1


@settings(deadline=None)
@given(st.integers(1, 64))
def test_layouts_spend_the_same_cores(cores: int) -> None:
    """Whoever runs on the CPU has all cores, however they are shared out, each way once."""
    found = layouts(cores, on_gpu=False)

    assert {layout.lanes * layout.threads for layout in found} == {cores}
    assert len(set(found)) == len(found) == min(cores, 2)
    assert layouts(cores, on_gpu=True) == (Layout(lanes=1, threads=cores),)


def test_a_job_survives_the_pipe(tmp_path: Path) -> None:
    """What a worker reads is what it was told."""
    variant = Variant(
        backend="openvino-cpu", precision="fp32", note="fp32", model=tmp_path, options={"a": "b"}
    )
    job = LoadJob.of(variant, Layout(lanes=2, threads=1), pad_token_id=3, max_length=9)

    assert LoadJob(**json.loads(json.dumps(job.document()))) == job


def test_every_backend_is_in_the_line_up(tmp_path: Path) -> None:
    """By its own file, with the same two names; the yardstick is among them; names are unique."""
    from benchmarks.backends.worker import backend

    variants = line_up(tmp_path, (), tmp_path)

    assert {variant.backend for variant in variants} == set(BACKENDS)
    assert YARDSTICK in {variant.name for variant in variants}
    assert len({variant.name for variant in variants}) == len(variants)
    for name in BACKENDS:
        assert {"missing", "load"} <= set(dir(backend(name)))


def test_graphs_that_cannot_be_made_are_a_reason(tmp_path: Path) -> None:
    """Of every variant that wanted one; who runs the checkpoint wants none."""
    (tmp_path / "config.json").write_text("{}")
    variants = line_up(tmp_path, (), tmp_path / "work")
    failed = make_graphs(tmp_path, variants, tmp_path / "work")

    for variant in variants:
        assert (str(variant.model) in failed) == (not variant.backend.startswith("torch"))
    assert all("optimum-cli" in reason for reason in failed.values())
    torch_only = [variant for variant in variants if variant.backend.startswith("torch")]
    assert make_graphs(tmp_path, torch_only, tmp_path / "work") == {}


@pytest.mark.parametrize(
    ("flags", "multiplies"),
    [("avx2 avx512_bf16 fma", True), ("avx2 amx_bf16", True), ("avx2 avx512f", False)],
)
def test_bf16_is_what_the_cpu_says(tmp_path: Path, flags: str, *, multiplies: bool) -> None:
    """By a whole word among its features; no file means no."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name : a CPU\nflags : fpu {flags} ibpb\n")

    assert multiplies_bf16(cpuinfo) is multiplies
    assert not multiplies_bf16(tmp_path / "nothing")


def test_who_has_a_server_is_served(tmp_path: Path) -> None:
    """Packages behind miniml serve, torch behind the prototype with its device and kind."""

    def served(**changes: object) -> tuple[str, dict[str, str]] | None:
        fields = {"backend": "onnx-cpu", "precision": "fp32", "note": "n", "model": tmp_path}
        variant = Variant(**{**fields, **changes})  # type: ignore[arg-type]
        peer = server_of(variant, cores=2, max_length=8, port=1)
        return None if peer is None else (" ".join(peer.command), dict(peer.environment))

    assert served() is None
    package = served(package=tmp_path)
    on_gpu = served(package=tmp_path, backend="onnx-cuda")
    torch = served(backend="torch-cuda", precision="bf16")
    assert package is not None
    assert on_gpu is not None
    assert torch is not None
    assert f"miniml serve {tmp_path} --port 1 --lanes 2 --threads 1" in package[0]
    assert "--lanes" not in on_gpu[0]
    assert "benchmarks.peers.prototype" in torch[0]
    assert torch[1]["PEER_DEVICE"] == "cuda"
    assert torch[1]["PEER_DTYPE"] == "bfloat16"


def grid_run(variant: str, layout: Layout, round_: int, ms: float) -> GridRun:
    """A round in which a batch of four costs thrice one text, and 32 tokens twice 16."""
    samples = {
        (batch, length): (9 * cell, cell, 0.5 * cell)
        for batch in BATCHES
        for length in GRID
        for cell in (ms * (3 if batch > 1 else 1) * length / 16,)
    }
    return GridRun(
        variant=variant,
        layout=layout,
        round=round_,
        samples_ms=samples,
        load_s=1.0,
        peak_rss_bytes=10**8 + round_,
    )


@pytest.fixture
def record() -> BackendsRecord:
    """torch at 10 ms a short text, ONNX int8 at 4 and, on two lanes, 5; OpenVINO is missing."""
    one, two = Layout(lanes=1, threads=2), Layout(lanes=2, threads=1)
    names = {"torch-cpu": "fp32", "onnx-cpu": "int8", "openvino-cpu": "fp32"}
    variants = [
        Variant(backend=name, precision=kind, note=kind, model=Path("m"))
        for name, kind in names.items()
    ]
    times: Sequence[tuple[str, Layout, Sequence[float]]] = (
        ("torch-cpu fp32", one, (10.0, 10.0, 99.0)),
        ("onnx-cpu int8", one, (4.0, 4.0, 4.0)),
        ("onnx-cpu int8", two, (5.0, 5.0, 5.0)),
    )
    return BackendsRecord(
        variants=variants,
        missing={"openvino-cpu fp32": "no openvino (pip install 'miniml[openvino]')"},
        answers={
            "torch-cpu fp32": AnswerAgreement(
                asked=64, alone=64, together=64, max_probability_gap=0.0
            ),
            "onnx-cpu int8": AnswerAgreement(
                asked=64, alone=62, together=60, max_probability_gap=0.25
            ),
        },
        runs=[
            grid_run(name, layout, round_, ms)
            for name, layout, each in times
            for round_, ms in enumerate(each)
        ],
        weights={"queries": {16: 1.0, 32: 0.0}, "reviews": {16: 0.0, 32: 1.0}},
        batches=BATCHES,
        geometry=MINILM,
        peaks={"cpu": {"threads": 2, "gflops": {"fp32": 100.0}, "gb_per_s": 10.0}},
        scenario={"cores": 2, "rounds": 3, "connections": 32},
        package_digest="d" * 64,
        precision="int8-row-wise",
    )


def test_speeds_are_of_medians_and_the_best_layout(record: BackendsRecord) -> None:
    """One slow round moves nothing; of two layouts the faster stands, at its best batch."""
    found = record.fastest("queries")

    assert found["torch-cpu fp32"].rate == pytest.approx(4e3 / 30)
    assert found["onnx-cpu int8"].rate == pytest.approx(2 * 4e3 / 15)
    assert found["onnx-cpu int8"].layout == Layout(lanes=2, threads=1)
    assert {one.batch for one in found.values()} == {4}
    assert record.fastest("reviews")["torch-cpu fp32"].rate == pytest.approx(2e3 / 30)
    assert found["onnx-cpu int8"].call_ms == (5.0, 5.0, 5.0)
    assert set(found) == {"torch-cpu fp32", "onnx-cpu int8"}


def test_the_record_holds_what_it_shows(record: BackendsRecord, tmp_path: Path) -> None:
    """From the file's samples alone come its rates, and it names no path."""
    path = record.write(tmp_path / "deep" / "record.json")
    document = json.loads(path.read_text())
    run = next(run for run in document["runs"] if run["variant"] == "torch-cpu fp32")
    samples = {(batch, length): ms for batch, length, ms in run["samples_ms"]}
    torch = next(one for one in document["speeds"] if one["variant"] == "torch-cpu fp32")

    assert document["kind"] == "backends"
    assert torch["rates"][0] == pytest.approx(4e3 / sorted(samples[4, 16])[1])
    assert torch["ceiling_texts_per_s"] == pytest.approx(
        ceiling_texts_per_s(MINILM, {16: 1.0}, ROOF, batch=4), abs=0.01
    )
    assert [one["ceiling_texts_per_s"] for one in document["speeds"]][1] is None
    assert sum(one["best_layout"] for one in document["speeds"]) == 4
    assert str(Path.cwd()) not in path.read_text()


def test_tables_tell_all(record: BackendsRecord) -> None:
    """In 100 columns: speed beside accuracy, and why one is missing."""
    console = Console(width=100)
    with console.capture() as captured:
        console.print(record)
    text = captured.get()

    assert "no openvino (pip install 'miniml[openvino]')" in " ".join(text.split())
    assert "533.3" in text
    assert "96.9%" in text
    assert "0.2500" in text
    assert "…" not in text


def test_the_ceiling_is_told_first(record: BackendsRecord) -> None:
    """A line for the hardware, and one for each workload."""
    lines = list(ceiling_lines(record.peaks, MINILM, record.weights, BATCHES))

    assert lines[0] == "cpu, 2 thread(s): at most fp32 100 GFLOP/s; memory 10.0 GB/s"
    assert len(lines) == 3


def test_an_interrupted_run_is_still_a_record(record: BackendsRecord) -> None:
    """Who has not had a turn has no numbers, and nothing breaks."""
    partial = replace(record, runs=record.runs[:1], answers={})

    assert set(partial.fastest("queries")) == {"torch-cpu fp32"}
    assert json.loads(json.dumps(partial.document()))["runs"]
    with Console(width=100).capture():
        Console(width=100).print(partial)
