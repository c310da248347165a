"""The recipes on a real graph: smaller, faithful, reproducible, and what each promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export import ExportOptions
from export.answers import Answers, answer_exam
from export.candidates import (
    CANDIDATES,
    FP32,
    Candidate,
    choose_candidates,
    runtime_options,
)
from export.checkpoint import Checkpoint
from export.errors import RecipeUnfit, UnknownCandidate
from export.exam import Exam
from export.gates import judge_answers
from export.recipes.bfloat16 import multiply_in_bfloat16
from export.recipes.compensated import ROUNDING
from export.recipes.graph import Graph
from export.recipes.material import Material
from export.recipes.mixed import SENSITIVITY, quantize_mixed
from export.recipes.plain import halve
from export.recipes.probe import Probe
from export.recipes.rowwise import NARROW_STEPS, compress_weights, quantize_rowwise
from export.recipes.static import smoothed
from serving.package import Runtime
from serving.session import Encoding, _settings, open_session, padded

# OpenVINO and, for the rest, whatever this CPU lacks: `choose_candidates` knows.
CHOSEN, LEFT_OUT = choose_candidates([], target="cpu")
HERE = [candidate for candidate in CHOSEN if candidate.name != "int8-row-wise-mixed"]


def answers(graph: Path, encodings: list[Encoding], candidate: Candidate | None = None) -> Answers:
    """On the whole exam."""
    session = open_session(
        graph,
        threads=1,
        runtime=candidate.runtime if candidate else "onnxruntime",
        options=runtime_options(candidate, 32) if candidate else {},
    )
    return answer_exam(session, encodings, pad_token_id=1, streams=1)


def int8_bytes(graph: Path) -> tuple[int, int]:
    """Bytes of constants in int8, and of all."""
    found = [numpy_helper.to_array(t) for t in onnx.load(str(graph)).graph.initializer]
    return sum(v.nbytes for v in found if v.itemsize == 1), sum(v.nbytes for v in found)


@pytest.mark.parametrize("candidate", HERE, ids=[candidate.name for candidate in HERE])
def test_recipe_keeps_the_answers(
    paper: tuple[Checkpoint, Exam],
    material: Material,
    encodings: list[Encoding],
    tmp_path: Path,
    candidate: Candidate,
) -> None:
    """Each passes wide gates on a network of random weights, and int8 recipes do make int8."""
    graph = tmp_path / "made.onnx"
    candidate.make(material, graph)

    verdict = judge_answers(
        candidate.name,
        answers(graph, encodings, candidate),
        fp32=answers(material.exported, encodings),
        exam=paper[1],
        options=ExportOptions(max_flip_percent=8, max_accuracy_drop_points=8),
        model_bytes=graph.stat().st_size,
    )

    assert verdict.reasons == ()
    small, total = int8_bytes(graph)
    assert (small > total / 4) is ("int8" in candidate.name)
    assert (verdict.max_probability_change > 1e-6) is (
        "int8" in candidate.name or "bf16" in candidate.name
    )


@pytest.mark.parametrize("candidate", HERE, ids=[candidate.name for candidate in HERE])
def test_recipe_is_reproducible(material: Material, tmp_path: Path, candidate: Candidate) -> None:
    """The same graph in gives the same bytes out, and beside them only how weights were rounded."""
    once, twice = tmp_path / "once" / "a.onnx", tmp_path / "twice" / "a.onnx"
    for target in (once, twice):
        target.parent.mkdir()
        candidate.make(material, target)

    assert {path.name for path in once.parent.iterdir()} <= {once.name, ROUNDING}
    for path in once.parent.iterdir():
        assert path.read_bytes() == (twice.parent / path.name).read_bytes()


@pytest.mark.parametrize(("threads", "steps"), [(1, 127), (2, 127), (1, NARROW_STEPS)])
@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_row_wise_is_bit_equal_in_any_batch(  # noqa: PLR0913, PLR0917 - fixtures and parameters
    slimmed: Path, encodings: list[Encoding], tmp_path: Path, size: int, threads: int, steps: int
) -> None:
    """A text's logits are the same bits alone and padded beside any others."""
    graph = tmp_path / "rows.onnx"
    onnx.save(quantize_rowwise(onnx.load(str(slimmed)), weight_steps=steps), str(graph))
    session = open_session(graph, threads=threads)
    alone = np.concatenate([session.run([encoding], pad_token_id=1) for encoding in encodings])

    for start in range(0, len(encodings) - size + 1, size):
        together = session.run(encodings[start : start + size], pad_token_id=1)
        np.testing.assert_array_equal(together, alone[start : start + size])


@pytest.mark.parametrize("steps", [127, NARROW_STEPS])
def test_products_may_share_a_weight(tmp_path: Path, steps: int) -> None:
    """As DeBERTa's keys of texts and of positions do: the graph loads on every CPU, and multiplies."""
    drawn = np.random.default_rng(0)
    weight, x = (drawn.normal(size=shape).astype(np.float32) for shape in ((32, 16), (3, 5, 32)))
    nodes = [
        onnx.helper.make_node("Neg", ["x"], ["minus"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["left"]),
        onnx.helper.make_node("MatMul", ["minus", "w"], ["right"]),
        onnx.helper.make_node("Sub", ["left", "right"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["batch", 5, None]) for n in ("x", "y")]
    constant = [numpy_helper.from_array(weight, "w")]
    graph = onnx.helper.make_graph(nodes, "shared", ends[:1], ends[1:], constant)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    path = tmp_path / "shared.onnx"
    onnx.save(quantize_rowwise(model, weight_steps=steps), str(path))

    session = ort.InferenceSession(str(path), _settings(1), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x})

    # Half the steps, twice the rounding.
    np.testing.assert_allclose(y, 2 * x @ weight, atol=0.4 * 127 / steps)


def test_two_narrow_products_fit_16_bits(slimmed: Path) -> None:
    """No weight is so large that two products with uint8 activations leave int16, and some are."""
    largest = []
    for steps in (NARROW_STEPS, 127):
        model = quantize_rowwise(onnx.load(str(slimmed)), weight_steps=steps)
        graph = Graph(model)
        products = [n for n in model.graph.node if n.op_type == "MatMulIntegerToFloat"]
        weights = [graph.constant(node.input[1]) for node in products]
        largest.append(max(int(np.abs(w.astype(int)).max()) for w in weights if w is not None))

    assert 2 * 255 * largest[0] <= np.iinfo(np.int16).max < 2 * 255 * largest[1]


def test_a_cpu_with_fast_int8_needs_no_narrow_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out there, with the reason, and tried where int8 sums are short of room."""
    named = ["int8-row-wise-narrow"]
    monkeypatch.setattr("export.candidates.cpu_features", lambda: frozenset({"avx_vnni"}))
    _, left_out = choose_candidates(named, target="cpu")
    monkeypatch.setattr("export.candidates.cpu_features", lambda: frozenset({"avx2"}))
    chosen, none_left_out = choose_candidates(named, target="cpu")

    assert "avx_vnni" in left_out["int8-row-wise-narrow"]
    assert [candidate.name for candidate in chosen] == ["int8-row-wise-narrow", FP32]
    assert none_left_out == {}


def test_slim_works_on_one_token_after_the_last_attention(
    slimmed: Path, encodings: list[Encoding]
) -> None:
    """The last layer's products but its queries, keys and values see one row a text; earlier, all."""
    model = onnx.load(str(slimmed))
    graph = Graph(onnx.load(str(slimmed)))
    products = [
        n for n in graph.nodes if n.op_type == "MatMul" and graph.constant(n.input[1]) is not None
    ]
    probe = Probe(model, [node.output[0] for node in products])
    feed = padded(encodings[:3], pad_token_id=1)
    tokens = [value.shape[1] for value in probe.run(feed).values()]

    longest = max(map(len, encodings[:3]))
    assert len(products) == 12
    assert tokens == [longest] * 9 + [1] * 3


def test_slim_has_no_shapes_left_to_compute(exported: Path, slimmed: Path) -> None:
    """A GELU is one node, no size is put together at run time, and there are far fewer nodes."""
    before, after = (onnx.load(str(path)).graph.node for path in (exported, slimmed))
    kinds = [node.op_type for node in after]

    assert kinds.count("Gelu") == 2
    assert "Erf" not in kinds
    assert kinds.count("Concat") <= 1
    assert len(after) < 0.8 * sum(node.op_type != "Constant" for node in before)


def test_smoothing_changes_no_answer(
    material: Material, encodings: list[Encoding], tmp_path: Path
) -> None:
    """What is divided out of the activations is multiplied into the weights."""
    graph = tmp_path / "smooth.onnx"
    onnx.save(smoothed(onnx.load(str(material.slim)), material), str(graph))

    np.testing.assert_allclose(
        answers(graph, encodings).alone, answers(material.slim, encodings).alone, atol=1e-4
    )


def test_compressed_weights_are_the_row_wise_ones(material: Material) -> None:
    """OpenVINO is given the same int8 weights as ONNX Runtime."""
    ours = Graph(quantize_rowwise(onnx.load(str(material.slim))))
    theirs = Graph(compress_weights(onnx.load(str(material.slim))))
    weights = [name for name in ours.constants if name.endswith("/int8")]

    assert len(weights) == 12 + 3  # products, and three embeddings
    for name in weights:
        np.testing.assert_array_equal(ours.constant(name), theirs.constant(name))


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_gpu_recipes_keep_the_answers(
    material: Material, encodings: list[Encoding], tmp_path: Path, kind: str
) -> None:
    """In half the bits logits stay near fp32's; run on the CPU, which widens what it cannot add."""
    graph = tmp_path / "half.onnx"
    if kind == "fp16":
        halve(material, graph)
    else:
        onnx.save(multiply_in_bfloat16(onnx.load(str(material.slim))), str(graph))
    runtime: Runtime = "openvino" if kind == "bf16" else "onnxruntime"
    options = {"INFERENCE_PRECISION_HINT": "f32"} if kind == "bf16" else {}
    session = open_session(graph, threads=1, runtime=runtime, options=options)
    expected = answers(material.exported, encodings).alone

    found = answer_exam(session, encodings, pad_token_id=1, streams=1).alone

    half = [t for t in onnx.load(str(graph)).graph.initializer if t.data_type in (10, 16)]
    assert len(half) >= 12
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_kept_weights_stay_in_float(material: Material) -> None:
    """`keep` names what is left as it was."""
    graph = Graph(onnx.load(str(material.slim)))
    kept = next(
        node.input[1]
        for node in graph.nodes
        if node.op_type == "MatMul" and graph.constant(node.input[1]) is not None
    )
    made = Graph(quantize_rowwise(onnx.load(str(material.slim)), keep=[kept]))

    np.testing.assert_array_equal(made.constant(kept), graph.constant(kept))
    assert f"{kept}/int8" not in made.constants


def test_mixed_leaves_out_the_layer_that_flips(
    material: Material, encodings: list[Encoding], tmp_path: Path
) -> None:
    """A layer that int8 ruins stays in fp32; the others do not, and the damage is written down."""
    graph = Graph(onnx.load(str(material.slim)))
    (product,) = (n for n in graph.nodes if "layer.1/intermediate/dense/MatMul" in n.name)
    norm = graph.maker(product.input[0])
    assert norm is not None
    # A channel of tiny activations and huge weights: the huge ones take all steps of their columns.
    for node, place, factor in ((norm, 1, 1e-4), (norm, 2, 1e-4), (product, 1, 1e4)):
        value = np.array(graph.constant(node.input[place]))
        value[0] *= factor
        node.input[place] = graph.set_constant(f"{node.name}/{place}", value)
    source = tmp_path / "hard.onnx"
    onnx.save(graph.seal(), str(source))
    target = tmp_path / "mixed" / "model.onnx"
    target.parent.mkdir()
    hard = replace(material, slim=source, calibration=encodings, flip_budget=0.05)

    quantize_mixed(hard, target)

    found = json.loads(target.with_name(SENSITIVITY).read_text())
    made = Graph(onnx.load(str(target))).constants
    assert found["layer 1"] > found["layer 0"]
    assert product.input[1] in made
    assert sum(name.endswith("/int8") for name in made) == 6 + 3


def test_mixed_is_unfit_where_nothing_flips(material: Material, tmp_path: Path) -> None:
    """With a wide budget no layer needs to be left out, and it says so."""
    with pytest.raises(RecipeUnfit, match="needs no exception"):
        quantize_mixed(replace(material, flip_budget=1.0), tmp_path / "model.onnx")


def test_fp32_is_always_the_last_resort() -> None:
    """Whatever is asked for, fp32 stands at the end, once; names may be given by commas."""
    chosen, left_out = choose_candidates(["fp32, int8-per-channel"], target="cpu")

    assert [c.name for c in chosen] == ["int8-per-channel", "fp32"]
    assert left_out == {}
    assert CHOSEN[-1].name == FP32


def test_what_this_machine_cannot_run_is_said() -> None:
    """A candidate asked for by name is not dropped in silence."""
    chosen, left_out = choose_candidates(["cuda-fp16"], target="cpu")

    assert [c.name for c in chosen] == [FP32]
    assert left_out == {"cuda-fp16": "it is for cuda"}


def test_unknown_candidate_is_told_what_there_is() -> None:
    """The sentence lists the recipes."""
    with pytest.raises(UnknownCandidate, match="'int4'; there are: int8-row-wise, "):
        choose_candidates(["int4"], target="cpu")


def test_names_are_unique() -> None:
    """A name is one candidate."""
    names = [candidate.name for candidate in CANDIDATES]

    assert len(names) == len(set(names))
