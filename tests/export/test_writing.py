"""What export writes into a package folder beside what the search found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.packages.graph import read_graph
from export.writing import _write_graph
from serving.package import MODEL, MODEL_DATA


@pytest.mark.parametrize(("rows", "beside"), [(8, False), (5000, True)])
def test_large_constants_lie_beside_the_graph(tmp_path: Path, rows: int, *, beside: bool) -> None:
    """Wherever its constants lie, a graph answers the same, and is written the same again."""
    table = np.random.default_rng(0).normal(size=(rows, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(table, "table")],
    )
    source = tmp_path / "found.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(source))
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
        _write_graph(source, folder)
    session = ort.InferenceSession(str(once / MODEL), providers=["CPUExecutionProvider"])

    (found,) = session.run(None, {"ids": np.array([0, rows - 1])})

    np.testing.assert_array_equal(found, table[[0, -1]])
    assert (once / MODEL_DATA).exists() is beside
    assert ((once / MODEL).stat().st_size < table.nbytes) is beside
    assert read_graph(once / MODEL) == read_graph(source)
    for file in once.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
        assert file.stat().st_mode == (once / MODEL).stat().st_mode
