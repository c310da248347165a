"""`miniml package`: what it says of a package is so, and what does not hold is one sentence."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers

from export.errors import AnswersDiffer, GraphUnreadable, NotSigned, UnusableOption
from export.package_options import (
    DiffOptions,
    InspectOptions,
    PackageBenchOptions,
    VerifyOptions,
)
from export.packages.comparing import diff_packages
from export.packages.graph import read_graph
from export.packages.inspecting import inspect_package
from export.packages.timing import bench_package, texts_per_s
from export.packages.verifying import verify_package
from export.signing import sign_package
from registry.artifact import Manifest, read_manifest, seal, staged
from registry.errors import CorruptArtifact, RegistryError
from serving.engine import Engine
from serving.errors import PackageError
from serving.package import (
    CARD,
    CONFIG,
    COST,
    GATES,
    GOLDEN,
    MODEL,
    TOKENIZER,
    CostGrid,
    GoldenAnswer,
    Package,
    PackageConfig,
)

WORDS = ("[PAD]", "[UNK]", "good", "bad", "soup", "staff", "cold", "warm", "not", "very")
TEXTS = ("good soup", "bad staff", "very very cold soup", "not warm")
LABELS = ("negative", "neutral", "positive")
CONFIG_OF_TINY = PackageConfig(
    name="tiny",
    task="single_label",
    text_pair=False,
    labels=LABELS,
    max_length=16,
    pad_token_id=0,
    inputs=("input_ids",),
    precision="fp32",
    batch_invariant=True,
    base_model="tiny-bert",
)
GRID = CostGrid(
    batches=(1, 4), lengths=(4, 16), ms=((1.0, 2.0), (3.0, 4.0)), threads=1, machine="abacus"
)
GATES_OF_TINY = {
    "fp32": {"accuracy": 0.75, "model_bytes": 4000},
    "served": {"accuracy": 0.5, "model_bytes": 1000, "label_flip_rate": 0.25},
}
MakePackage = Callable[..., Path]


def tiny_graph(labels: int, *, seed: int, scale: float, order: Sequence[int]) -> onnx.ModelProto:
    """logits (B, labels) = sum of the tokens' rows of one table; *order* permutes its columns."""
    rng = np.random.default_rng(seed)
    values = scale * rng.normal(size=(len(WORDS), labels)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "time"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(values[:, list(order)]), "table"),
        numpy_helper.from_array(np.array([1]), "time"),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "time"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])
    graph = helper.make_graph(nodes, "tiny", [ids], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def golden_lines(folder: Path, config: PackageConfig, texts: Sequence[str]) -> str:
    """What the engine answers now, as export would write it."""
    manifest = Manifest(kind="package", files={}, lineage={})
    engine = Engine(Package(folder=folder, manifest=manifest, config=config, cost=GRID))
    answers = (
        GoldenAnswer(text=text, logits=tuple(map(float, row))).to_line()
        for text, row in zip(texts, engine.logits(texts), strict=True)
    )
    return "".join(f"{line}\n" for line in answers)


@pytest.fixture
def make_package(tmp_path: Path) -> MakePackage:
    """A sealed package at *name*; further arguments are fields of its config."""

    def make(  # noqa: PLR0913 - each law changes one thing
        name: str = "tiny",
        *,
        texts: Sequence[str] = TEXTS,
        seed: int = 0,
        scale: float = 1.0,
        order: Sequence[int] | None = None,
        grid: CostGrid = GRID,
        lineage: dict[str, str] | None = None,
        **changes: Any,
    ) -> Path:
        config = replace(CONFIG_OF_TINY, **changes)
        lineage = lineage or {"checkpoint": "reviews/1"}
        labels = len(config.labels)
        with staged(tmp_path / name, kind="package", lineage=lineage) as folder:
            graph = tiny_graph(labels, seed=seed, scale=scale, order=order or range(labels))
            onnx.save(graph, str(folder / MODEL))
            vocabulary = {word: number for number, word in enumerate(WORDS)}
            tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            tokenizer.save(str(folder / TOKENIZER))
            (folder / CONFIG).write_bytes(config.to_bytes())
            (folder / COST).write_bytes(grid.to_bytes())
            (folder / GATES).write_text(json.dumps(GATES_OF_TINY))
            (folder / CARD).write_text("tiny\n")
            (folder / GOLDEN).write_text(golden_lines(folder, config, texts))
        return tmp_path / name

    return make


def reseal(folder: Path) -> None:
    """Make a changed package whole again: what somebody with the tools could do."""
    seal(folder, kind="package", lineage=read_manifest(folder).lineage)


def edit_golden(folder: Path, change: Callable[[list[float]], object]) -> None:
    """Change the logits of the last golden answer, and seal."""
    *lines, last = (folder / GOLDEN).read_text().splitlines()
    answer = json.loads(last)
    answer["logits"] = change(answer["logits"])
    (folder / GOLDEN).write_text("\n".join([*lines, json.dumps(answer)]) + "\n")
    reseal(folder)


def shown(result: object) -> str:
    """What a person sees, in one line."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    return " ".join(capture.get().split())


def miniml(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`miniml package ...`, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "miniml", "package", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_inspect_says_what_a_package_is(make_package: MakePackage) -> None:
    """Config, files, gates, graph, cost and lineage, from the package alone."""
    folder = make_package()
    document: Any = inspect_package(InspectOptions(package=str(folder))).document()

    assert document["digest"] == read_manifest(folder).digest
    assert document["signed"] is False
    assert document["config"]["labels"] == LABELS
    assert document["config"]["runtime"] == "onnxruntime"
    assert document["files"][MODEL] == (folder / MODEL).stat().st_size
    assert document["total_bytes"] == sum(document["files"].values())
    assert document["lineage"] == {"checkpoint": "reviews/1"}
    assert document["gates"]["served"]["label_flip_rate"] == 0.25
    assert document["gates"]["fp32"]["macro_f1"] is None
    assert document["graph"] == {
        "opsets": {"ai.onnx": 17},
        "operators": {"Gather": 1, "ReduceSum": 1},
        "parameter_bytes": {"float32": 4 * 3 * len(WORDS), "int64": 8},
        "nodes": 2,
    }
    assert document["cost"]["machine"] == "abacus"


def test_inspect_shows_labels_as_they_are_and_not_too_many(make_package: MakePackage) -> None:
    """A label that looks like markup stays; of many the first are shown, the document has all."""
    labels = ("[red]", "[/]", *(f"label-{number}" for number in range(48)))
    result = inspect_package(InspectOptions(package=str(make_package(labels=labels))))
    document: Any = result.document()

    assert "50: [red], [/], label-0" in shown(result)
    assert "and 42 more" in shown(result)
    assert document["config"]["labels"] == labels


@pytest.mark.parametrize("name", [MODEL, CONFIG, GOLDEN, CARD])
def test_inspect_names_the_corrupt_file(make_package: MakePackage, name: str) -> None:
    """A package that is not what its manifest says is not looked into."""
    folder = make_package()
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)

    with pytest.raises(CorruptArtifact, match=name):
        inspect_package(InspectOptions(package=str(folder)))


def test_a_graph_that_is_none_is_refused(make_package: MakePackage) -> None:
    """A sealed package may hold anything; what is no ONNX is said."""
    folder = make_package()
    (folder / MODEL).write_bytes(b"\xff" * 64)
    reseal(folder)

    with pytest.raises(GraphUnreadable, match=MODEL):
        inspect_package(InspectOptions(package=str(folder)))


def test_graph_facts_see_into_subgraphs(tmp_path: Path) -> None:
    """Nodes and constants inside an If count; an operator of another domain keeps its name."""
    value = numpy_helper.from_array(np.ones(3, np.float16), "value")
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT16, [3])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=value)], "branch", [], [out]
    )
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    nodes = [
        helper.make_node("If", ["condition"], ["mid"], then_branch=branch, else_branch=branch),
        helper.make_node("Gelu", ["mid"], ["out"], domain="com.microsoft"),
    ]
    graph = helper.make_graph(nodes, "both", [condition], [out])
    onnx.save(helper.make_model(graph), str(tmp_path / MODEL))
    facts = read_graph(tmp_path / MODEL)

    assert facts.operators == {"Constant": 2, "If": 1, "com.microsoft.Gelu": 1}
    assert facts.parameter_bytes == {"float16": 12}


def test_a_whole_package_verifies(make_package: MakePackage) -> None:
    """On the machine that made it, the golden answers come back to the last bit."""
    result = verify_package(VerifyOptions(package=str(make_package())))

    assert result.max_logit_difference == 0.0
    assert result.golden_texts == len(TEXTS)
    assert result.document()["signature_verified"] is False
    assert "signature none" in shown(result)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: [logits[0] + 0.5, *logits[1:]], "differ by 0.500 on 'not warm'"),
        (lambda logits: [math.nan, *logits[1:]], "differ by nan"),
        (lambda logits: logits[:2], "3 logits, not 2"),
    ],
)
def test_edited_golden_answers_are_refused(
    make_package: MakePackage, change: Callable[[list[float]], object], words: str
) -> None:
    """Whoever edits them and seals again has a whole package that does not verify."""
    folder = make_package()
    edit_golden(folder, change)

    with pytest.raises(AnswersDiffer, match=words):
        verify_package(VerifyOptions(package=str(folder)))


def test_another_label_is_refused_however_close(make_package: MakePackage) -> None:
    """Logits within the tolerance are not enough when the answer is another one."""
    folder = make_package(scale=1e-3)
    edit_golden(folder, lambda logits: logits[1:] + logits[:1])

    with pytest.raises(AnswersDiffer, match="not '"):
        verify_package(VerifyOptions(package=str(folder)))


@pytest.mark.parametrize("content", ["", "{}\n", "nonsense\n"])
def test_golden_answers_must_be_there(make_package: MakePackage, content: str) -> None:
    """None, or unreadable ones, prove nothing and are refused by every command that needs them."""
    folder = make_package()
    (folder / GOLDEN).write_text(content)
    reseal(folder)

    for command in (
        lambda: verify_package(VerifyOptions(package=str(folder))),
        lambda: diff_packages(DiffOptions(left=str(folder), right=str(folder))),
        lambda: bench_package(PackageBenchOptions(package=str(folder))),
    ):
        with pytest.raises(PackageError, match=GOLDEN):
            command()


def test_verify_asks_for_the_signature(make_package: MakePackage, tmp_path: Path) -> None:
    """With a public key an unsigned package is refused, and a signed one verifies."""
    folder, key = make_package(), ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    options = VerifyOptions(package=str(folder), public_key=public)
    with pytest.raises(NotSigned):
        verify_package(options)
    sign_package(folder, private)
    document = verify_package(options).document()

    assert (document["signed"], document["signature_verified"]) == (True, True)
    assert "not checked" in shown(verify_package(VerifyOptions(package=str(folder))))


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_a_package_does_not_differ_from_itself(make_package: MakePackage, task: str) -> None:
    """No field, file or label differs, and every answer is the same."""
    folder = str(make_package(task=task))
    result = diff_packages(DiffOptions(left=folder, right=folder))
    document: Any = result.document()

    assert document["empty"] is True
    assert (document["config"], document["lineage"], document["files"]) == ({}, {}, {})
    assert (document["labels_added"], document["labels_removed"]) == ([], [])
    assert document["answers"] == {
        "texts": len(TEXTS),
        "same_labels": len(TEXTS),
        "max_probability_difference": 0.0,
    }
    assert "The same package." in shown(result)


def test_diff_names_what_differs(make_package: MakePackage) -> None:
    """Fields, lineage and files; both are asked the golden texts of either, each once."""
    left = make_package("left")
    right = make_package(
        "right",
        seed=1,
        texts=("good soup", "cold cold staff"),
        precision="int8",
        lineage={"checkpoint": "reviews/2"},
    )
    result = diff_packages(DiffOptions(left=str(left), right=str(right)))
    document: Any = result.document()

    assert document["empty"] is False
    assert document["config"] == {"precision": ("fp32", "int8")}
    assert document["lineage"] == {"checkpoint": ("reviews/1", "reviews/2")}
    assert sorted(document["files"]) == [CONFIG, GOLDEN, MODEL]
    assert document["answers"]["texts"] == 5
    assert 0 < document["answers"]["max_probability_difference"] <= 1
    assert document["answers"]["same_labels"] < 5
    assert document["gates"]["left"] == document["gates"]["right"]
    assert "precision fp32 int8" in shown(result)


def test_diff_of_other_labels_compares_no_answers(make_package: MakePackage) -> None:
    """Added and removed labels are named, the rest is shown, and why answers are not compared."""
    left = make_package("left")
    right = make_package("right", labels=("negative", "mixed", "positive"))
    result = diff_packages(DiffOptions(left=str(left), right=str(right)))
    document: Any = result.document()

    assert (document["labels_added"], document["labels_removed"]) == (["mixed"], ["neutral"])
    assert document["config"] == {}
    assert document["answers"] is None
    assert "label sets differ" in document["not_compared"]
    assert "labels removed neutral" in shown(result)


def test_diff_of_another_task_compares_no_answers(make_package: MakePackage) -> None:
    """A softmax and a sigmoid mean different things."""
    left, right = make_package("left"), make_package("right", task="multi_label")
    document = diff_packages(DiffOptions(left=str(left), right=str(right))).document()

    assert "tasks differ" in str(document["not_compared"])


def test_diff_compares_labels_by_name(make_package: MakePackage) -> None:
    """The same model with its labels in another order gives the same answers."""
    left = make_package("left")
    right = make_package("right", labels=(LABELS[2], LABELS[0], LABELS[1]), order=(2, 0, 1))
    document: Any = diff_packages(DiffOptions(left=str(left), right=str(right))).document()

    assert document["answers"]["same_labels"] == len(TEXTS)
    assert document["answers"]["max_probability_difference"] < 1e-6
    assert list(document["config"]) == ["labels"]


def test_bench_measures_the_same_grid(make_package: MakePackage) -> None:
    """Every cell of `cost.json` again, with the ratio and both machines."""
    result = bench_package(PackageBenchOptions(package=str(make_package()), budget_s=0.1))
    document: Any = result.document()

    assert document["here"]["batches"] == GRID.batches
    assert document["here"]["lengths"] == GRID.lengths
    for row, ratios, written in zip(
        document["here"]["ms"], document["ratio"], GRID.ms, strict=True
    ):
        np.testing.assert_allclose(ratios, np.array(row) / written, atol=1e-4)
    assert document["golden_tokens"] == [2, 2, 4, 2]
    assert document["exported_texts_per_s"] == 1000.0
    assert document["texts_per_s"] > 0
    assert "on abacus" in shown(result)
    assert document["here"]["machine"] not in ("", "abacus")


def test_bench_says_what_the_export_did_not_measure(make_package: MakePackage) -> None:
    """A cell that is in no `cost.json` has no ratio."""
    folder = make_package(grid=replace(GRID, lengths=(4, 8)))
    document = bench_package(PackageBenchOptions(package=str(folder), budget_s=0.1)).document()

    assert [row[2] for row in document["ratio"]] == [None, None]  # type: ignore[attr-defined]


def test_bench_refuses_no_time(make_package: MakePackage) -> None:
    """A budget must be above 0."""
    with pytest.raises(UnusableOption, match="budget"):
        bench_package(PackageBenchOptions(package=str(make_package()), budget_s=0.0))


def test_texts_per_second_are_weighted_over_lengths() -> None:
    """Half of the texts at 1 ms and half at 2 ms make 1000 texts in 1.5 s."""
    assert texts_per_s(GRID, [4, 16]) == pytest.approx(1000 / 1.5)
    assert texts_per_s(GRID, [1, 2, 3]) == pytest.approx(1000)


@pytest.mark.parametrize("verb", ["inspect", "verify", "diff", "bench"])
def test_json_is_one_document(make_package: MakePackage, verb: str) -> None:
    """With --json stdout holds the result and nothing else."""
    folder = str(make_package())
    more = {"diff": [folder], "bench": ["--budget-s", "0.1"]}.get(verb, [])
    result = miniml(verb, folder, *more, "--json")

    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert folder in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "nothing"], "nothing"),
        (["verify", "{tiny}", "--public-key", "no-such.pem"], "not signed"),
        (["diff", "{tiny}", "no/such/folder"], "no/such/folder"),
        (["bench", "{tiny}", "--budget-s", "-1"], "budget"),
        (["inspect", "./[red]no[/]such"], "/[red]no[/]such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_faults_are_one_sentence(
    make_package: MakePackage, arguments: list[str], words: str
) -> None:
    """What the user can mend ends with exit code 1 and a message, never with a traceback."""
    folder = str(make_package())
    result = miniml(*(argument.replace("{tiny}", folder) for argument in arguments))

    assert result.returncode == 1
    assert "Error:" in result.stderr
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_every_error_can_be_mended(make_package: MakePackage) -> None:
    """Also a package of another kind, and one that is not published."""
    folder = make_package()
    seal(folder, kind="dataset", lineage={})
    for reference in (str(folder), "tiny/7", "s3://"):
        with pytest.raises(RegistryError) as raised:
            inspect_package(InspectOptions(package=reference))
        assert raised.value.exit_code == 1


def test_options_are_light() -> None:
    """Help needs neither numpy nor ONNX nor the signing library."""
    heavy = ("numpy", "onnx", "onnxruntime", "model_signing", "mlflow", "tokenizers")
    code = f"import sys, export.package_options; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
