"""The recipes on a real graph: smaller, faithful, and refused when they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import ExportOptions
from export.answers import Answers, answer_exam
from export.candidates import CANDIDATES, FP32, Candidate, choose_candidates, keep_fp32
from export.checkpoint import Checkpoint
from export.errors import UnknownCandidate
from export.exam import Exam
from export.gates import judge_answers
from export.judging import judge
from export.rowwise import quantize_rowwise
from serving.engine import Encoding, Session

Make = Callable[[Path, Path], None]
INT8 = [candidate for candidate in CANDIDATES if candidate.name != FP32]


def answers(graph: Path, encodings: list[Encoding]) -> Answers:
    """On the whole exam."""
    return answer_exam(graph, encodings, pad_token_id=1, advance=lambda _: None)


def float_matrices(graph: Path) -> list[str]:
    """Constant matrices that are still float32."""
    return [
        tensor.name
        for tensor in onnx.load(str(graph)).graph.initializer
        if len(tensor.dims) == 2 and min(tensor.dims) > 1 and tensor.data_type == 1
    ]


@pytest.mark.parametrize("candidate", INT8, ids=[candidate.name for candidate in INT8])
def test_int8_gives_the_same_answers(
    paper: tuple[Checkpoint, Exam],
    exported: Path,
    encodings: list[Encoding],
    tmp_path: Path,
    candidate: Candidate,
) -> None:
    """Each int8 recipe passes the gates, and the fp32 weights are gone but for the head's."""
    graph = tmp_path / "int8.onnx"
    candidate.make(exported, graph)

    verdict = judge_answers(
        candidate.name,
        answers(graph, encodings),
        fp32=answers(exported, encodings),
        exam=paper[1],
        options=ExportOptions(),
    )

    assert verdict.reasons == ()
    assert verdict.max_probability_change > 0
    assert float_matrices(graph) <= ["bert.pooler.dense.weight", "classifier.weight"]


@pytest.mark.parametrize("candidate", CANDIDATES, ids=[c.name for c in CANDIDATES])
def test_recipe_is_reproducible(exported: Path, tmp_path: Path, candidate: Candidate) -> None:
    """The same graph in gives the same bytes out, and nothing is left beside them."""
    once, twice = tmp_path / "once" / "a.onnx", tmp_path / "twice" / "a.onnx"
    for target in (once, twice):
        target.parent.mkdir()
        candidate.make(exported, target)

    assert once.read_bytes() == twice.read_bytes()
    assert list(once.parent.iterdir()) == [once]


@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_row_wise_is_bit_equal_in_any_batch(
    exported: Path, encodings: list[Encoding], tmp_path: Path, size: int
) -> None:
    """A text's logits are the same bits alone and padded beside any others."""
    graph = tmp_path / "rows.onnx"
    quantize_rowwise(exported, graph)
    session = Session(graph, threads=1)
    alone = np.concatenate([session.run([encoding], pad_token_id=1) for encoding in encodings])

    for start in range(0, len(encodings) - size + 1, size):
        together = session.run(encodings[start : start + size], pad_token_id=1)
        np.testing.assert_array_equal(together, alone[start : start + size])


def edited(change: Callable[[np.ndarray], np.ndarray], pattern: str) -> Make:
    """A recipe that spoils the constants whose name contains *pattern*."""

    def make(source: Path, target: Path) -> None:
        model = onnx.load(str(source))
        found = [tensor for tensor in model.graph.initializer if pattern in tensor.name]
        assert found, f"no constant like {pattern}"
        for tensor in found:
            value = change(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        onnx.save(model, str(target))

    return make


def wrong_scales(source: Path, target: Path) -> None:
    """Row-wise int8 whose column scales are off by a half."""
    quantize_rowwise(source, target)
    edited(lambda scale: scale * 1.5, "/scale")(target, target)


FAULTS: dict[str, Make] = {
    "weights zeroed": edited(np.zeros_like, "MatMul"),
    "one label's bias flipped": edited(lambda bias: bias + np.array([20, 0, 0]), "classifier.bias"),
    "wrong scales": wrong_scales,
    "no numbers": edited(lambda weight: weight * np.nan, "classifier.weight"),
}


@pytest.mark.parametrize("make", FAULTS.values(), ids=FAULTS.keys())
def test_planted_fault_is_refused(
    paper: tuple[Checkpoint, Exam], tmp_path: Path, make: Make
) -> None:
    """A recipe that silently spoils the model is not packaged: fp32 is, and the reason stands."""
    checkpoint, exam = paper
    candidates = (Candidate(name="faulty", make=make), Candidate(name=FP32, make=keep_fp32))

    judged = judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)

    assert judged.served.name == FP32
    assert judged.served.accuracy == 1.0
    faulty = judged.document()["candidates"][0]
    assert (faulty["name"], faulty["passed"]) == ("faulty", False)
    assert faulty["reasons"]
    assert "no quantized candidate passed its gates, so fp32 is served" in judged.notes


def test_first_that_passes_is_served(paper: tuple[Checkpoint, Exam], tmp_path: Path) -> None:
    """The order is the preference: a later candidate that passes too is only shown."""
    checkpoint, exam = paper
    candidates = choose_candidates(["int8-per-channel", "int8-row-wise"])

    judged = judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)

    assert [verdict.name for verdict in judged.verdicts] == [
        "int8-per-channel",
        "int8-row-wise",
        "fp32",
    ]
    assert all(verdict.passed for verdict in judged.verdicts)
    assert judged.served.name == "int8-per-channel"
    assert judged.graph.name == "int8-per-channel.onnx"


def test_fp32_is_always_the_last_resort() -> None:
    """Whatever is asked for, fp32 stands at the end, once."""
    assert [c.name for c in choose_candidates(["fp32", "int8-per-channel"])] == [
        "int8-per-channel",
        "fp32",
    ]
    assert choose_candidates([]) == CANDIDATES


def test_unknown_candidate_is_told_what_there_is() -> None:
    """The sentence lists the recipes."""
    with pytest.raises(UnknownCandidate, match="'int4'; there are: int8-row-wise, "):
        choose_candidates(["int4"])
