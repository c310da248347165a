"""Running a graph: as many threads at once as it has streams, and what is missing is said."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import EngineFailed, PackageError
from serving.package import Package, Runtime
from serving.session import Encoding, _settings, open_session

TEXTS = [
    Encoding(ids=tuple(range(2, 2 + length)), type_ids=(0,) * length) for length in (3, 5, 8, 4) * 6
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_streams_do_not_mix_answers(package: Package, runtime: Runtime, threads: int) -> None:
    """Four callers on two streams get what each would get alone, in order."""
    session = open_session(package.model_path, threads=threads, streams=2, runtime=runtime)
    expected = [session.run([text]) for text in TEXTS]

    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda text: session.run([text]), TEXTS))

    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


def test_openvino_answers_as_onnx_runtime(package: Package) -> None:
    """Two runtimes of one fp32 graph differ by rounding."""
    ours, theirs = (
        open_session(package.model_path, threads=1, runtime=runtime)
        for runtime in ("onnxruntime", "openvino")
    )

    for text in TEXTS:
        np.testing.assert_allclose(ours.run([text]), theirs.run([text]), atol=1e-4)


def test_a_failure_leaves_the_stream_usable(package: Package) -> None:
    """A token that is in no vocabulary fails its own batch and no other."""
    session = open_session(package.model_path, threads=1, streams=1)
    bad = Encoding(ids=(10**6,), type_ids=(0,))
    expected = session.run(TEXTS[:1])

    for _ in range(3):
        with pytest.raises(EngineFailed, match="batch of 1"):
            session.run([bad])

    np.testing.assert_array_equal(session.run(TEXTS[:1]), expected)


def test_a_missing_runtime_is_one_sentence(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to install is said, not where the import failed."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(PackageError, match=r"pip install 'miniml\[openvino\]'"):
        open_session(package.model_path, threads=1, runtime="openvino")
    with pytest.raises(PackageError, match="needs CUDAExecutionProvider, which this"):
        open_session(package.model_path, threads=1, runtime="cuda")


def test_int8_sums_are_exact_on_every_cpu() -> None:
    """The largest products there are add up to the integer they are, and are not capped at 16 bits."""
    weight = np.full((64, 16), 127, dtype=np.int8)
    one = np.ones(16, dtype=np.float32)
    zero = np.array(0, dtype=np.uint8)
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "one", "scale", "zero"], ["y"], domain="com.microsoft"
    )
    constants = {"w": weight, "one": one[0], "scale": one, "zero": zero}
    graph = helper.make_graph(
        [node],
        "extreme",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = ort.InferenceSession(
        model.SerializeToString(), _settings(1), providers=["CPUExecutionProvider"]
    )

    (sums,) = session.run(["y"], {"x": np.full((9, 64), 255, dtype=np.uint8)})

    np.testing.assert_array_equal(sums, np.full((9, 16), 64 * 255 * 127))


@pytest.mark.parametrize(
    ("features", "exact_is_slow"), [({"avx2"}, True), ({"avx2", "avx512_vnni"}, False)]
)
def test_the_slow_kernel_is_for_who_needs_it(
    monkeypatch: pytest.MonkeyPatch, features: set[str], exact_is_slow: bool
) -> None:
    """Where the fast kernel adds up exactly, no session asks for the other."""
    monkeypatch.setattr("serving.session.cpu_features", lambda: frozenset(features))
    settings, option = _settings(1), "session.x64quantprecision"

    if exact_is_slow:
        assert settings.get_session_config_entry(option) == "1"
    else:
        with pytest.raises(RuntimeError, match=option):
            settings.get_session_config_entry(option)
