"""Rounded so that errors make up, weights never do worse than rounded to nearest, and stay in range."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from export import ExportOptions
from export.candidates import CANDIDATES, FP32
from export.checkpoint import Checkpoint
from export.exam import Exam
from export.judging import judge
from export.recipes import grams
from export.recipes.compensated import ROUNDING, quantize_compensated
from export.recipes.grams import Product, products
from export.recipes.graph import Graph
from export.recipes.material import Material
from export.recipes.probe import Probe
from export.recipes.rounding import round_making_up, round_to_nearest
from export.recipes.rowwise import NARROW_STEPS, quantize_rowwise
from export.training_rows import TrainingRows
from serving.session import padded

Floats = npt.NDArray[np.float32]
STEPS = (NARROW_STEPS, 127)
K, N = 96, 40


def drawn(tokens: int, seed: int = 0) -> tuple[Floats, Floats]:
    """X (tokens, K), channels correlated, one far larger and one always zero; W (K, N)."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(tokens, 12)) @ random.normal(size=(12, K))
    x += random.normal(size=(tokens, K))
    x[:, 3] *= 50
    x[:, 7] = 0
    weight = random.normal(size=(K, N))
    weight[0] *= 6
    weight[:, 5] = 0
    return x.astype(np.float32), weight.astype(np.float32)


def errors(x: Floats, weight: Floats, codes: npt.NDArray[np.int8], scale: Floats) -> Floats:
    """Squared, of the outputs, by column."""
    difference = x.astype(np.float64) @ (codes * scale.astype(np.float64) - weight)
    found: Floats = (difference**2).sum(axis=0)
    return found


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("tokens", [1, 20, 96, 1000])
def test_no_column_does_worse_than_to_nearest(tokens: int, steps: int) -> None:
    """On the inputs it was made for; on all columns together it does far better."""
    x, weight = drawn(tokens)
    nearest = round_to_nearest(weight, steps)
    made_up = round_making_up(weight, x.T @ x, steps)

    before = errors(x, weight, nearest.codes, nearest.scale)
    after = errors(x, weight, made_up.rounded.codes, made_up.rounded.scale)

    assert (after <= before * (1 + 1e-4)).all()
    assert after.sum() < 0.5 * before.sum()
    assert made_up.error_ratio == pytest.approx(after.sum() / before.sum(), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("steps", STEPS)
def test_other_texts_gain_as_well(steps: int) -> None:
    """What makes up on some inputs makes up on others of their kind."""
    x, weight = drawn(2000)
    nearest = round_to_nearest(weight, steps)
    made_up = round_making_up(weight, x[:1000].T @ x[:1000], steps).rounded

    before = errors(x[1000:], weight, nearest.codes, nearest.scale).sum()
    after = errors(x[1000:], weight, made_up.codes, made_up.scale).sum()

    assert after < 0.7 * before


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("seed", range(4))
def test_codes_stay_in_range(steps: int, seed: int) -> None:
    """However much is to be made up for, no code leaves -steps..steps, and scales are the columns'."""
    x, weight = drawn(50, seed)
    made_up = round_making_up(weight, x.T @ x, steps).rounded

    assert np.abs(made_up.codes.astype(int)).max() == steps
    np.testing.assert_array_equal(made_up.scale, round_to_nearest(weight, steps).scale)


@pytest.mark.parametrize(
    "gram", [np.eye(K), 3 * np.eye(K), np.zeros((K, K)), np.full((K, K), np.nan)]
)
@pytest.mark.parametrize("steps", STEPS)
def test_inputs_without_relation_leave_the_nearest(
    gram: npt.NDArray[np.float64], steps: int
) -> None:
    """Where no row can make up for another, or nothing is known, each goes to its nearest."""
    weight = drawn(1)[1]
    made_up = round_making_up(weight, gram.astype(np.float32), steps)

    np.testing.assert_array_equal(made_up.rounded.codes, round_to_nearest(weight, steps).codes)
    assert made_up.error_ratio == 1.0


def all_products(material: Material, told: list[int] | None = None) -> Iterator[Product]:
    """Of the slimmed graph, on the calibration texts."""
    return products(
        onnx.load(str(material.slim)),
        material.calibration,
        pad_token_id=material.pad_token_id,
        advance=(told if told is not None else []).append,
    )


def test_padding_is_in_no_gram(material: Material) -> None:
    """A batch run padded, its padding cut away, gives the same X^T X as texts alone."""
    model = onnx.load(str(material.slim))
    made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    feed = padded(material.calibration, pad_token_id=material.pad_token_id)
    inputs = Probe(model, sorted(set(made.values())))
    values = inputs.run({name: feed[name] for name in inputs.inputs()})
    real = feed["attention_mask"].astype(bool)
    assert not real.all()

    found = list(all_products(material))

    assert len(found) == 12
    for product in found:
        value = values[made[product.out]]
        rows = value[real] if value.shape[:2] == real.shape else value.reshape(-1, value.shape[-1])
        np.testing.assert_allclose(product.gram, rows.T @ rows, rtol=1e-3, atol=1e-2)


def test_memory_changes_no_gram(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    """One gram at a time, or rows multiplied as they come: the same sums, and all work is told."""
    together, told = list(all_products(material)), list[int]()
    monkeypatch.setattr(grams, "_GRAM_BYTES", 1)
    one_by_one = list(all_products(material, told))

    assert [product.out for product in one_by_one] == [product.out for product in together]
    for one, other in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(one.gram, other.gram)
    inputs = len({product.gram.tobytes() for product in together})
    assert sum(told) == 12 + inputs * len(material.calibration)

    monkeypatch.setattr(grams, "_ROWS", 1)
    for one, other in zip(all_products(material), together, strict=True):
        np.testing.assert_allclose(one.gram, other.gram, rtol=1e-3, atol=1e-2)


def test_the_graph_holds_what_was_rounded(material: Material, tmp_path: Path) -> None:
    """Each product's codes are those that its own weight and inputs give, and it is said how."""
    target = tmp_path / "model.onnx"
    quantize_compensated(material, target, weight_steps=NARROW_STEPS)
    made = onnx.load(str(target))
    graph = Graph(made)
    integer = [node for node in made.graph.node if node.op_type == "MatMulIntegerToFloat"]
    codes = {node.output[0]: node.input[1] for node in integer}

    for product in all_products(material):
        expected = round_making_up(product.weight, product.gram, NARROW_STEPS).rounded
        found = graph.constant(codes[f"{product.out}/raw"])
        np.testing.assert_array_equal(found, expected.codes)
    said = json.loads(target.with_name(ROUNDING).read_text())
    assert said["training_texts"] == len(material.calibration)
    assert said["training_tokens"] == sum(map(len, material.calibration))
    assert 0 < said["median_squared_error_ratio"] < 1


def test_no_more_texts_than_it_takes(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole texts, until there are tokens enough."""
    lengths = [len(text) for text in material.calibration]
    monkeypatch.setattr("export.recipes.compensated._TOKENS", sum(lengths[:5]))
    target = tmp_path / "model.onnx"

    quantize_compensated(material, target, weight_steps=NARROW_STEPS)

    assert json.loads(target.with_name(ROUNDING).read_text())["training_texts"] == 5


def test_without_texts_it_is_the_nearest(material: Material, tmp_path: Path) -> None:
    """The same bytes as plain row-wise int8 of that many steps."""
    made, plain = tmp_path / "model.onnx", tmp_path / "plain.onnx"
    quantize_compensated(replace(material, calibration=()), made, weight_steps=NARROW_STEPS)
    model = onnx.load(str(material.slim))
    onnx.save(quantize_rowwise(model, weight_steps=NARROW_STEPS), str(plain))

    assert made.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("texts", [0, 20])
def test_export_says_how_weights_were_rounded(
    paper: tuple[Checkpoint, Exam], tmp_path: Path, texts: int
) -> None:
    """`gates.json` holds it for the candidate; a served one without training texts has a note."""
    checkpoint, exam = paper
    name = "int8-row-wise-narrow"
    candidates = [candidate for candidate in CANDIDATES if candidate.name in (name, FP32)]
    training = TrainingRows(rows=exam.rows[:texts], missing="" if texts else "none were given")
    wide = ExportOptions(max_flip_percent=100, max_accuracy_drop_points=100)

    judged = judge(checkpoint, exam, candidates, wide, tmp_path, training)

    said = judged.document()["rounding"]
    notes = [note for note in judged.notes if "weights were rounded" in note]
    assert judged.served.name == name
    assert list(said) == [name]
    assert said[name].get("training_texts", 0) == texts
    assert len(notes) == (0 if texts else 1)
