"""The engine benchmark: who takes turns, what is derived; the README runs it for real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.engines import PACKAGE, PIPELINE, PLAIN, EngineRecord, _measure
from benchmarks.geometry import read_geometry
from benchmarks.options import EngineOptions
from benchmarks.peak import Peak, measure_fp32_peak, measure_int8_peak
from benchmarks.workloads import Row

ROWS: list[Row] = [{"text": str(number)} for number in range(7)]


def record(package: Sequence[float]) -> EngineRecord:
    """With peers at 10 and 5 texts/s."""
    return EngineRecord(
        rates={PACKAGE: package, PLAIN: [10.0, 10.0, 10.0], PIPELINE: [5.0, 5.0, 5.0]},
        gop_per_text=2.0,
        peak=Peak(gops=100.0, threads=1, how="a guess"),
        scenario={"threads": 1, "texts": 7},
        package_digest="d",
        precision="int8-row-wise",
    )


def test_ratios_are_of_medians() -> None:
    """One slow round moves nothing; what is shown is derived from the rounds."""
    found = record([30.0, 3.0, 31.0])
    document = found.document()

    assert (found.times(PLAIN), found.times(PIPELINE)) == (3.0, 6.0)
    assert document["times_plain_onnx"] == 3.0
    assert document["package_share_of_peak"] == 0.6
    assert json.loads(json.dumps(document))["rates"][PACKAGE] == [30.0, 3.0, 31.0]


def test_backends_take_turns_on_the_same_rows() -> None:
    """Every backend answers every row once a round, batch by batch, the warm-up not counted."""
    heard: list[tuple[str, list[str]]] = []
    backends = {
        name: lambda rows, name=name: heard.append((name, [row["text"] for row in rows]))
        for name in ("a", "b")
    }

    rates = _measure(backends, ROWS, EngineOptions(rounds=2, batch=3))

    assert [name for name, _ in heard[:4]] == ["a", "b", "a", "b"]
    for name in ("a", "b"):
        asked = [text for who, texts in heard for text in texts if who == name]
        assert asked == [row["text"] for row in ROWS] * 3
        assert len(rates[name]) == 2


def test_operations_are_those_of_the_products(tmp_path: Path) -> None:
    """BERT-base on 128 tokens: 85 million weights in products, and attention."""
    config = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    (tmp_path / "config.json").write_text(json.dumps(config))

    weights, attention = 12 * (4 * 768**2 + 2 * 768 * 3072), 12 * 2 * 128 * 768

    geometry = read_geometry(tmp_path)

    assert geometry.weights == weights
    assert geometry.gop(128) == pytest.approx(2 * 128 * (weights + attention) / 1e9)
    assert geometry.gop(128) == pytest.approx(22.3, abs=0.1)


def test_the_peak_is_measured() -> None:
    """It is a rate that was seen, and says where."""
    peaks = {"MatMulInteger": measure_int8_peak(1), "MatMul": measure_fp32_peak(1)}

    for node, peak in peaks.items():
        assert peak.gops > 1
        assert f"plain {node} runs" in peak.how


def test_what_cannot_be_found_is_one_sentence(miniml_home: Path) -> None:
    """A package that is not there ends with exit code 1 and no traceback."""
    assert miniml_home.exists()
    command = [sys.executable, "-m", "miniml", "bench", "engine", "--package", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "The package 'nothing' cannot be found" in result.stderr
    assert "Traceback" not in result.stderr
