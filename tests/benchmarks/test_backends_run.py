"""`bench backends` for real, on a model of a few thousand weights: what is here runs, the rest says why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.backends.http import NO_SERVER, measure_servers
from benchmarks.backends.inputs import read_inputs
from benchmarks.backends.models import line_up
from benchmarks.backends.options import BackendsOptions
from benchmarks.backends.processes import ask_worker
from benchmarks.backends.record import BackendsRecord
from benchmarks.backends.run import run_backends
from benchmarks.backends.seen import Seen
from benchmarks.backends.variant import LoadJob
from benchmarks.errors import EngineBroke, PackageUnrelated
from benchmarks.peers.assets import Assets, fp32_labels
from benchmarks.plain import MODEL, halve_plain
from serving.lanes import filler
from serving.package import open_package
from serving.session import open_session

ROOT = Path(__file__).parent.parent.parent
Seal = Callable[..., Path]


@pytest.fixture(scope="session")
def texts(sure: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of texts that fp32 is sure of."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(f"{text}\n" for text, _ in sure))
    return path


@pytest.fixture(scope="session")
def record(
    package: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BackendsRecord, Path]:
    """One quick round of everything, and the file it left."""
    output = tmp_path_factory.mktemp("record") / "record.json"
    options = BackendsOptions(
        package=str(package),
        texts=texts,
        cores=2,
        batches="1,3",
        rounds=1,
        cell_s=0.001,
        output=output,
    )
    return run_backends(options), output


def test_whoever_is_here_was_measured(record: tuple[BackendsRecord, Path]) -> None:
    """Every variant has a reason, or answers and a whole grid on every layout; on any machine."""
    found, path = record
    lengths = next(iter(found.weights.values())).keys()
    ran = {run.variant for run in found.runs}

    assert ran | found.missing.keys() == {variant.name for variant in found.variants}
    assert not ran & found.missing.keys()
    assert ran == found.answers.keys()
    assert {"torch-cpu fp32", "onnx-cpu fp32", "onnx-cpu package: fp32"} <= ran
    assert all(found.missing.values())
    for run in found.runs:
        assert run.samples_ms.keys() == {(b, length) for b in (1, 3) for length in lengths}
        assert all(ms and min(ms) > 0 for ms in run.samples_ms.values())
        assert run.layout.lanes * run.layout.threads == 2
    document = json.loads(path.read_text())
    assert document["scenario"]["complete"]
    assert document["package"]["name"] == "tiny"
    assert [run["variant"] for run in document["runs"]] == [run.variant for run in found.runs]


def test_packages_alike_are_told_apart(
    package: Path, assets: Assets, seal: Seal, tmp_path: Path
) -> None:
    """Two that say the same of themselves are two lines; one given twice is one."""
    labels = open_package(package).config.labels
    other = seal(tmp_path / "other", labels, name="other")
    packages = [open_package(folder) for folder in (package, other, package)]

    variants = line_up(assets.checkpoint, packages, tmp_path)

    assert len({variant.name for variant in variants}) == len(variants)
    assert [v.package for v in variants if v.package is not None] == [package, other]


def test_all_fp32_backends_answer_alike(record: tuple[BackendsRecord, Path]) -> None:
    """Torch, ONNX Runtime and OpenVINO compute one network: the same labels, alone and together."""
    found, _ = record
    exact = [v.name for v in found.variants if v.precision == "fp32" and v.name in found.answers]

    assert len(exact) >= 3
    for name in exact:
        answers = found.answers[name]
        assert answers.alone == answers.together == answers.asked
        assert answers.max_probability_gap < 1e-4


def test_the_ceiling_was_measured(record: tuple[BackendsRecord, Path]) -> None:
    """In fp32 and int8, and from memory."""
    cpu = record[0].peaks["cpu"]

    assert cpu["threads"] == 2
    assert min(cpu["gb_per_s"], *cpu["gflops"].values()) > 0.1
    assert {"fp32", "int8"} <= cpu["gflops"].keys()


def test_what_is_not_installed_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that cannot be imported is named, with what to install; others go on."""
    for name in ("openvino", "torch"):
        (tmp_path / name).mkdir()
        broken = f"raise ImportError('not here', name={name!r})\n"
        (tmp_path / name / "__init__.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    wanted = [["openvino-cpu", "fp32"], ["torch-cpu", "fp32"], ["torch-cuda", "fp16"]]

    *reasons, onnx = ask_worker("probe", wanted=[*wanted, ["onnx-cpu", "int8"]])["reasons"]

    assert [reason.split(" is not installed (pip install")[0] for reason in reasons] == [
        "openvino",
        "torch",
        "torch",
    ]
    assert onnx is None


def test_a_halved_graph_is_the_same_in_half(assets: Assets, tmp_path: Path) -> None:
    """It takes and gives what the fp32 graph does, every weight is fp16, and answers are near."""
    import onnx

    path = halve_plain(assets.exported, tmp_path / "half") / MODEL
    halved = onnx.load(str(path)).graph
    exact = onnx.load(str(assets.exported / MODEL)).graph
    kinds = {weight.data_type for weight in halved.initializer}

    for name in ("input", "output"):
        assert [node.name for node in getattr(halved, name)] == [
            node.name for node in getattr(exact, name)
        ]
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds
    found, right = (
        open_session(graph, threads=1).run([filler(5), filler(9)], pad_token_id=1)
        for graph in (path, assets.exported / MODEL)
    )
    np.testing.assert_allclose(found, right, atol=0.05)


def test_a_backend_that_breaks_is_one_sentence(tmp_path: Path) -> None:
    """Its process fails, not ours."""
    load: Mapping[str, object] = LoadJob(
        precision="fp32",
        model=str(tmp_path / "no.onnx"),
        lanes=1,
        threads=1,
        pad_token_id=0,
        max_length=8,
    ).document()

    with pytest.raises(EngineBroke, match=r"it failed: .*no\.onnx"):
        ask_worker("answers", backend="onnx-cpu", load=load, encodings=[[[1, 2], [0, 0]]])


def test_backends_behind_servers(
    package: Path, texts: Path, assets: Assets, tmp_path: Path, free_port: int
) -> None:
    """Torch is served, checked and loaded every round; a bare graph says that it has no server."""
    options = BackendsOptions(
        package=str(package),
        texts=texts,
        rounds=2,
        connections=2,
        duration_s=1.0,
        warmup_s=0.0,
        port=free_port,
    )
    inputs = read_inputs(options)
    variants = [
        variant
        for variant in line_up(assets.checkpoint, (), tmp_path)
        if variant.name in ("torch-cpu fp32", "onnx-cpu fp32")
    ]
    seen = Seen()
    said = list(
        measure_servers(
            variants,
            inputs,
            options,
            labels=fp32_labels(assets, [row["text"] for row in inputs.checked]),
            seen=seen,
            logs=tmp_path,
        )
    )

    assert [(run.peer, run.round) for run in seen.http_runs] == [
        ("torch-cpu fp32", 0),
        ("torch-cpu fp32", 1),
    ]
    assert all(run.wire.latencies_ms and not run.errors for run in seen.http_runs)
    assert seen.http_missing == {"onnx-cpu fp32": NO_SERVER}
    assert len(said) == 4


def test_a_package_of_other_labels_is_refused(package: Path, seal: Seal, tmp_path: Path) -> None:
    """Packages that answer another question cannot be compared."""
    other = seal(tmp_path / "other", ("yes", "no", "maybe"))

    with pytest.raises(PackageUnrelated, match="other labels"):
        read_inputs(BackendsOptions(package=str(package), also=(str(other),)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--package", "nothing"), "The package 'nothing' cannot be found"),
        (("--only", "tpu"), "There is no backend 'tpu'"),
        (("--batches", "1,x"), "--batches '1,x' is not a list of numbers"),
        (("--rounds", "0"), "--rounds 0 is too little"),
        (("--texts", "nothing.txt"), "nothing.txt cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence(
    miniml_home: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 1, no traceback, and nothing was started."""
    assert miniml_home.exists()
    command = [sys.executable, "-m", "miniml", "bench", "backends", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
