"""The fp32 graph answers as the checkpoint does, and names nothing but the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import CheckpointError
from export.exam import Exam
from export.fp32 import TOLERANCE, export_fp32, graph_inputs
from export.recipes.compensated import ROUNDING, quantize_compensated
from export.recipes.material import Material
from export.recipes.rowwise import NARROW_STEPS, quantize_rowwise
from export.recipes.slim import slim
from serving.session import Encoding, open_session

MakeCheckpoint = Callable[..., Path]
Weights = dict[str, Any]
PLAIN = ("input_ids", "attention_mask")


# Name -> what `config.json` says beside the sizes (`model_type` where it is another), and the inputs.
ARCHITECTURES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "bert": ({}, (*PLAIN, "token_type_ids")),
    "minilm": (  # a BERT that is narrow and deep, with small heads
        {
            "model_type": "bert",
            "hidden_size": 24,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 96,
        },
        (*PLAIN, "token_type_ids"),
    ),
    "distilbert": ({"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}, PLAIN),
    "roberta": ({"type_vocab_size": 1}, PLAIN),
    "xlm-roberta": ({"type_vocab_size": 1}, PLAIN),
    "electra": ({"embedding_size": 32}, (*PLAIN, "token_type_ids")),
    "deberta-v2": (  # as DeBERTa-v3 is configured
        {
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
        PLAIN,
    ),
    "modernbert": ({"local_attention": 8, "global_attn_every_n_layers": 2}, PLAIN),
}


def made(make_checkpoint: MakeCheckpoint, architecture: str) -> Path:
    """A checkpoint of that architecture, tiny and of random weights."""
    config = dict(ARCHITECTURES[architecture][0])
    return make_checkpoint(config.pop("model_type", architecture), **config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graph_answers_as_torch(
    make_checkpoint: MakeCheckpoint, encodings: list[Encoding], tmp_path: Path, architecture: str
) -> None:
    """Alone and padded, logits are torch's; segments are asked for only where they are used."""
    inputs = ARCHITECTURES[architecture][1]
    checkpoint = read_checkpoint(made(make_checkpoint, architecture))

    graph, difference = export_fp32(checkpoint, encodings, tmp_path)

    assert difference <= TOLERANCE
    assert graph_inputs(graph) == inputs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_slim_and_row_wise_hold_for_every_architecture(
    make_checkpoint: MakeCheckpoint, encodings: list[Encoding], tmp_path: Path, architecture: str
) -> None:
    """Slimmed, a graph answers as before; row-wise, with the same bits alone and in company."""
    checkpoint = read_checkpoint(made(make_checkpoint, architecture))
    exported, _ = export_fp32(checkpoint, encodings, tmp_path)
    slimmed, rows = tmp_path / "slim.onnx", tmp_path / "rows.onnx"
    onnx.save(slim(exported, longest=24), str(slimmed))
    onnx.save(quantize_rowwise(slim(exported, longest=24)), str(rows))
    fp32, light, int8 = (open_session(path, threads=1) for path in (exported, slimmed, rows))
    alone = np.concatenate([int8.run([text], pad_token_id=1) for text in encodings])

    for start in range(0, len(encodings), 7):
        batch = encodings[start : start + 7]
        expected = fp32.run(batch, pad_token_id=1)
        np.testing.assert_allclose(light.run(batch, pad_token_id=1), expected, atol=TOLERANCE)
        np.testing.assert_array_equal(int8.run(batch, pad_token_id=1), alone[start : start + 7])
    integer = [n for n in onnx.load(str(rows)).graph.node if n.op_type == "MatMulIntegerToFloat"]
    assert len(integer) >= 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_that_make_up_hold_for_every_architecture(
    make_checkpoint: MakeCheckpoint, encodings: list[Encoding], tmp_path: Path, architecture: str
) -> None:
    """Every product is rounded for its inputs, with smaller errors; a text's bits stay its own."""
    checkpoint = read_checkpoint(made(make_checkpoint, architecture))
    exported, _ = export_fp32(checkpoint, encodings, tmp_path)
    slimmed, graph = tmp_path / "slim.onnx", tmp_path / "rows.onnx"
    onnx.save(slim(exported, longest=24), str(slimmed))
    material = Material(
        exported=exported,
        slim=slimmed,
        calibration=encodings[:24],
        pad_token_id=1,
        heads=2,
        hidden_size=32,
        flip_budget=0.02,
    )

    quantize_compensated(material, graph, weight_steps=NARROW_STEPS)

    said = json.loads(graph.with_name(ROUNDING).read_text())
    integer = [n for n in onnx.load(str(graph)).graph.node if n.op_type == "MatMulIntegerToFloat"]
    assert said["products"] == len(integer) >= 8
    assert said["median_squared_error_ratio"] < 1
    session = open_session(graph, threads=1)
    alone = np.concatenate([session.run([text], pad_token_id=1) for text in encodings])
    for start in range(0, len(encodings), 7):
        batch = encodings[start : start + 7]
        np.testing.assert_array_equal(session.run(batch, pad_token_id=1), alone[start : start + 7])


def test_batch_and_length_are_dynamic(exported: Path, encodings: list[Encoding]) -> None:
    """A batch of any size and length gives a row of logits for each text."""
    session = open_session(exported, threads=1)
    shortest, longest = min(encodings, key=len), max(encodings, key=len)

    assert len(shortest) < len(longest)
    assert session.run([shortest]).shape == (1, 3)
    assert session.run([longest] * 5).shape == (5, 3)


def test_equal_checkpoints_give_equal_bytes(
    paper: tuple[Checkpoint, Exam], exported: Path, encodings: list[Encoding], tmp_path: Path
) -> None:
    """Exporting again, elsewhere, gives the same file."""
    again, _ = export_fp32(paper[0], encodings, tmp_path)

    assert again.read_bytes() == exported.read_bytes()


def test_graph_names_no_place(paper: tuple[Checkpoint, Exam], exported: Path) -> None:
    """No folder of the machine that exported it stands in the file."""
    content = exported.read_bytes()

    assert str(paper[0].folder).encode() not in content
    assert b"site-packages" not in content


def test_export_leaves_one_file(exported: Path) -> None:
    """Weights are inside the graph; what the exporter writes beside it is gone."""
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    assert (
        onnx.load(str(exported), load_external_data=False).graph.initializer[0].data_location == 0
    )


def wider_head(weights: Weights) -> None:
    """One output more than there are labels."""
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = np.concatenate([weights[name], weights[name][:1]])


def no_head(weights: Weights) -> None:
    """An encoder without its classifier."""
    del weights["classifier.weight"], weights["classifier.bias"]


@pytest.mark.parametrize("spoil", [wider_head, no_head])
def test_head_that_does_not_fit_is_refused(
    make_checkpoint: MakeCheckpoint,
    encodings: list[Encoding],
    tmp_path: Path,
    spoil: Callable[[Weights], None],
) -> None:
    """Weights that would have to be invented stop the export."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        spoil(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    checkpoint = read_checkpoint(make_checkpoint(change=change))

    with pytest.raises(CheckpointError, match=r"does not hold what .* \(classifier\.bias"):
        export_fp32(checkpoint, encodings, tmp_path)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("ernie", r"cannot be exported to ONNX: .*; fine-tune another encoder, for .*\.$"),
        ("fnet", "takes no attention_mask"),
    ],
)
def test_unfit_architecture_is_refused(
    make_checkpoint: MakeCheckpoint,
    encodings: list[Encoding],
    tmp_path: Path,
    architecture: str,
    words: str,
) -> None:
    """What optimum cannot export, or padding would change, is named in one sentence."""
    checkpoint = read_checkpoint(make_checkpoint(architecture))

    with pytest.raises(CheckpointError, match=rf"^tiny-{architecture} \({architecture}\) {words}"):
        export_fp32(checkpoint, encodings, tmp_path)


def test_unknown_architecture_is_refused(
    make_checkpoint: MakeCheckpoint, encodings: list[Encoding], tmp_path: Path
) -> None:
    """So is one that transformers does not know."""

    def change(folder: Path) -> None:
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('"bert"', '"nosuch"'))

    checkpoint = read_checkpoint(make_checkpoint(change=change))

    said = r"transformers cannot load it \(The [^.]*`nosuch`[^.]*\); fine-tune another[^.]*\.$"
    with pytest.raises(CheckpointError, match=said):
        export_fp32(checkpoint, encodings, tmp_path)
