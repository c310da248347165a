"""The stage as a whole: what a finished export is, and that an unfinished one is nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from rich.console import Console
from tokenizers import Tokenizer

from export import ExportOptions, export_package
from export.candidates import choose_candidates
from export.checkpoint import Checkpoint
from export.errors import UnusableKey, UnusableOption
from export.exam import Exam
from export.judging import judge
from export.machine import code_digest
from export.options import Objective
from export.training_rows import TrainingRows
from registry import store
from registry.artifact import file_sha256, read_manifest
from registry.errors import ArtifactExists
from serving.engine import Engine
from serving.package import CARD, GATES, REPORT, open_package

if TYPE_CHECKING:
    from export.result import ExportResult

ROOT = Path(__file__).parent.parent.parent
MakeCheckpoint = Callable[..., Path]
# As the `result` fixture asked.
QUICK = ("int8-row-wise,int8-per-channel",)
OBJECTIVE: Objective = "size"


@pytest.fixture
def at_home(packaged_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `result` was published."""
    monkeypatch.setenv("MINIML_HOME", str(packaged_home))


def test_package_opens_and_answers_as_it_did(result: ExportResult) -> None:
    """Serving opens the package, and its engine gives the golden logits to the last bit."""
    package = open_package(result.folder)
    golden = package.golden()

    logits = Engine(package).logits([answer.text for answer in golden])

    assert len(golden) == 16
    assert len({len(answer.text) for answer in golden}) > 8
    np.testing.assert_array_equal(
        logits, np.array([answer.logits for answer in golden], dtype=np.float32)
    )


def test_package_says_what_serving_must_know(result: ExportResult) -> None:
    """Labels, lengths, inputs and a cost grid; a tokenizer that neither pads nor cuts."""
    package = open_package(result.folder)
    tokenizer = Tokenizer.from_file(str(package.tokenizer_path))

    assert package.config.labels == ("negative", "neutral", "positive")
    assert (package.config.max_length, package.config.pad_token_id) == (24, 1)
    assert package.config.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert package.config.precision == "int8-row-wise"
    assert package.config.batch_invariant
    assert package.cost.lengths == (8, 16, 24)
    assert all(ms > 0 for row in package.cost.ms for ms in row)
    assert (tokenizer.padding, tokenizer.truncation) == (None, None)
    assert len(tokenizer.encode("soup " * 40).ids) == 42


def test_the_exams_answers_are_kept(result: ExportResult, paper: tuple[Checkpoint, Exam]) -> None:
    """Counted as the package itself answers the exam, and shown on its card and page."""
    package = open_package(result.folder)
    answers = list(Engine(package).predict([row.text for row in paper[1].rows]))
    counts = [sum(a.label == label for a in answers) for label in package.config.labels]
    exam = package.exam

    assert exam is not None
    assert exam.labels == (*counts, 0)
    assert exam.rows == sum(exam.confidence) == len(answers)
    for name in (CARD, REPORT):
        text = (result.folder / name).read_text(encoding="utf-8")
        assert "Answers on the exam" in text
        assert f"{counts[0]} of {len(answers)} ({counts[0] / len(answers):.1%})" in text


def test_gates_are_documented(result: ExportResult, paper: tuple[Checkpoint, Exam]) -> None:
    """`gates.json` holds fp32, what is served, each candidate and the budgets they were held to."""
    gates = json.loads((result.folder / GATES).read_bytes())

    assert gates == result.gates
    assert gates["exam_rows"] == len(paper[1].rows)
    assert gates["max_flip_percent"] == 2.0
    assert gates["versions"]["onnxruntime"] == onnxruntime.__version__
    assert gates["torch_max_logit_difference"] < 1e-4
    assert gates["fp32"]["accuracy"] == 1.0
    assert gates["served"] == gates["candidates"][0]
    assert gates["served"]["speed"]["rounds"] == 3
    assert gates["served"]["exam_rows"] == gates["exam_rows"]
    assert gates["label_flip_rate"] == gates["served"]["label_flip_rate"] <= 0.02
    assert gates["flip_interval"][1] > 0.02
    assert any("too few to be sure" in note for note in gates["notes"])
    assert gates["batch_bit_equal"] is gates["deterministic"] is True


@pytest.mark.usefixtures("at_home")
def test_package_is_registered_with_its_lineage(result: ExportResult, bert: Path) -> None:
    """The version carries digest, metrics and alias, and leads back to checkpoint and rows."""
    version = store.resolve("tiny@champion", kind="package")

    assert version == result.version
    assert version.digest == read_manifest(result.folder).digest
    assert version.lineage["checkpoint"] == str(bert)
    assert version.lineage["checkpoint_digest"] == read_manifest(bert).digest
    assert version.lineage["dataset"] == "reviews/1"
    assert version.metrics["accuracy"] == result.gates["served"]["accuracy"]


def test_result_is_shown(result: ExportResult) -> None:
    """The table has a row for each candidate with its verdict; the document is JSON."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result)
    card = (result.folder / "README.md").read_text()

    assert all(name in capture.get() for name in ("int8-row-wise", "int8-per-channel", "fp32"))
    assert "served" in capture.get()
    assert json.loads(json.dumps(result.document()))["reference"] == result.version.reference
    assert "Labels: negative, neutral, positive." in card
    assert "tiny-bert, fine-tuned for single-label classification" in card


@pytest.mark.usefixtures("at_home")
def test_reuse_returns_the_same_version(result: ExportResult, bert: Path, tmp_path: Path) -> None:
    """An equal export is found again, says so, and can still be written elsewhere."""
    output = tmp_path / "copy"

    again = export_package(
        ExportOptions(
            checkpoint=str(bert),
            output=output,
            reuse=True,
            candidates=QUICK,
            objective=OBJECTIVE,
        )
    )

    assert again.reused
    assert again.version.reference == result.version.reference
    assert open_package(output).digest == result.version.digest


@pytest.mark.usefixtures("at_home")
def test_same_checkpoint_gives_the_same_model(
    result: ExportResult, bert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exported again, `model.onnx` has the same bytes; stdout belongs to the front door."""
    again = export_package(
        ExportOptions(checkpoint=str(bert), candidates=QUICK, objective=OBJECTIVE)
    )

    assert not again.reused
    assert again.version.number == result.version.number + 1
    assert file_sha256(again.folder / "model.onnx") == file_sha256(result.folder / "model.onnx")
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("at_home")
def test_pairs_and_several_labels(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """A multi-label model of text pairs goes the same way, and may be kept in fp32."""
    checkpoint = make_checkpoint(task="multi_label", text_pair=True)
    output = tmp_path / "package"

    export_package(
        ExportOptions(
            checkpoint=str(checkpoint), output_name="several", candidates=("fp32",), output=output
        )
    )
    package = open_package(output)
    golden = package.golden()
    answers = Engine(package).predict(["good soup"], ["cold soup"])

    assert (package.config.task, package.config.text_pair) == ("multi_label", True)
    assert (package.config.name, package.config.precision) == ("several", "fp32")
    assert all(answer.text_pair for answer in golden)
    assert next(answers).labels is not None
    assert package.gates["notes"] == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_flip_percent": -1.0}, UnusableOption, "max_flip_percent is -1.0"),
        ({"max_accuracy_drop_points": float("nan")}, UnusableOption, "is nan"),
        ({"budget_minutes": 0.0}, UnusableOption, "--budget-minutes is 0.0"),
        ({"tune_thresholds": True}, UnusableOption, "--tune-thresholds is for multi-label"),
        ({"calibrate": True}, UnusableOption, "need the training rows, but reviews/1 cannot be"),
        ({"sign_key": ROOT / "README.md"}, UnusableKey, "README.md"),
        ({"min_exam_rows": 0}, UnusableOption, "--min-exam-rows is 0"),
        ({"exam_limit": 10}, UnusableOption, "--exam-limit is 10"),
        ({"output": ROOT}, ArtifactExists, "already exists"),
    ],
)
def test_unusable_option_is_refused(
    bert: Path, options: dict[str, object], error: type[Exception], words: str
) -> None:
    """What cannot work is said before any work is done."""
    with pytest.raises(error, match=words):
        export_package(replace(ExportOptions(checkpoint=str(bert)), **options))  # type: ignore[arg-type]


def test_full_disk_is_seen_before_the_work(
    paper: tuple[Checkpoint, Exam], miniml_home: Path
) -> None:
    """A model that would not fit is refused at once, as the system's own error."""
    from export.pipeline import _workshop_folder

    with (
        pytest.raises(OSError, match="No space left") as caught,
        _workshop_folder(replace(paper[0], weights_bytes=2**60), "key"),
    ):
        pass

    assert caught.value.errno == errno.ENOSPC
    assert miniml_home.exists()


@pytest.mark.parametrize(
    ("by", "code"),
    [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["interrupted", "killed"],
)
def test_cut_short_it_leaves_no_package_and_goes_on(
    bert: Path, miniml_home: Path, tmp_path: Path, by: signal.Signals, code: int
) -> None:
    """Interrupted or killed, nothing is left that a later stage would accept.

    Run again, it goes on with what was finished: the graph is not exported a second time.
    """
    output = tmp_path / "package"
    command = [sys.executable, "-m", "miniml", "export", str(bert), "--output", str(output)]
    command += ["--candidates", *QUICK, "--objective", OBJECTIVE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "Measuring" in line)  # the graph is written
        process.send_signal(by)
        process.communicate()

    assert process.returncode == code
    assert store.list_versions(kind="package") == []
    assert not output.exists()
    left = [path for path in miniml_home.rglob("*") if path.is_file()]
    finished = [path for path in left if path.is_relative_to(miniml_home / "work" / "export")]
    assert by == signal.SIGKILL or left == finished
    assert not [path for path in finished if ".part" in path.name]
    assert {path.parent.name for path in finished} >= {"int8-row-wise", "int8-per-channel", "fp32"}

    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)

    assert "Measuring" in again.stderr
    assert "Exporting" not in again.stderr
    assert open_package(output).config.precision == "int8-row-wise"
    assert not list(miniml_home.glob("work/export/*/*/model.onnx"))


# What is spoiled, and how: constants whose name contains the word, changed.
FAULTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "weights zeroed": ("/int8", np.zeros_like),
    "wrong scales": ("/scale", lambda scale: scale * 1.5),
    "one label's bias flipped": ("classifier.bias", lambda bias: bias + np.array([20, 0, 0])),
    "no numbers": ("classifier.weight", lambda weight: weight * np.nan),
}


def edited(
    graph: Path, pattern: str, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto:
    """*graph* with the constants changed whose name contains *pattern*."""
    model = onnx.load(str(graph))
    found = [tensor for tensor in model.graph.initializer if pattern in tensor.name]
    assert found, f"no constant like {pattern}"
    for tensor in found:
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(value).astype(value.dtype), tensor.name))
    return model


def test_planted_fault_is_refused(paper: tuple[Checkpoint, Exam], tmp_path: Path) -> None:
    """A graph that silently spoils the model is not packaged: fp32 is, and the reason stands."""
    checkpoint, exam = paper
    candidates, _ = choose_candidates(["int8-row-wise"], target="cpu")
    judged = judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)
    assert judged.served.name == "int8-row-wise"

    for name, spoil in FAULTS.items():
        folder = tmp_path / "int8-row-wise"
        for made in folder.glob("*.npz"):
            made.unlink()
        spoiled = edited(judged.graph, *spoil)
        onnx.save(spoiled, str(judged.graph))
        again = judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)
        entry = again.document()["candidates"][0]
        shutil.rmtree(folder)  # made anew for the next fault
        judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)

        assert again.served.name == "fp32", name
        assert again.verdict.accuracy == 1.0
        assert (entry["name"], entry["passed"]) == ("int8-row-wise", False)
        assert entry["reasons"]
        assert "no quantized candidate passed its gates, so fp32 is served" in again.notes


def test_a_graph_that_cannot_run_is_no_end(paper: tuple[Checkpoint, Exam], tmp_path: Path) -> None:
    """A candidate whose process fails is named with its reason, and the others are judged."""
    checkpoint, exam = paper
    candidates, _ = choose_candidates(["int8-row-wise", "int8-per-channel"], target="cpu")
    broken = tmp_path / "int8-row-wise" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(b"not a graph")

    judged = judge(checkpoint, exam, candidates, ExportOptions(), tmp_path)

    assert judged.served.name == "int8-per-channel"
    assert "model.onnx cannot be loaded" in judged.not_tried["int8-row-wise"]


def test_what_is_unfit_is_not_tried_twice(paper: tuple[Checkpoint, Exam], tmp_path: Path) -> None:
    """A recipe that found nothing to do is remembered with its reason when the export goes on."""
    checkpoint, exam = paper
    candidates, _ = choose_candidates(["int8-row-wise-mixed"], target="cpu")
    wide = ExportOptions(max_flip_percent=100)
    training = TrainingRows(rows=exam.rows)

    once = judge(checkpoint, exam, candidates, wide, tmp_path, training)
    log = tmp_path / "int8-row-wise-mixed" / "make.log"
    log.unlink()
    twice = judge(checkpoint, exam, candidates, wide, tmp_path, training)

    assert "needs no exception" in once.not_tried["int8-row-wise-mixed"]
    assert twice.not_tried == once.not_tried
    assert twice.sensitivity == once.sensitivity != {}
    assert not log.exists()


def test_other_code_makes_another_recipe(tmp_path: Path) -> None:
    """A byte, a name or a file more in the source is seen; what is no source is not."""
    (tmp_path / "recipes").mkdir()
    source = tmp_path / "recipes" / "one.py"
    source.write_text("STEPS = 127\n")
    before = code_digest(tmp_path)
    (tmp_path / "recipes" / "one.pyc").write_text("compiled")
    unchanged = code_digest(tmp_path)
    source.write_text("STEPS = 126\n")
    edited_digest = code_digest(tmp_path)
    source.rename(tmp_path / "recipes" / "two.py")

    assert unchanged == before
    assert len({before, edited_digest, code_digest(tmp_path)}) == 3


def test_without_time_fp32_is_still_judged(paper: tuple[Checkpoint, Exam], tmp_path: Path) -> None:
    """A budget that is spent leaves candidates out by name; it never leaves the exam out."""
    checkpoint, exam = paper
    candidates, _ = choose_candidates(["int8-row-wise"], target="cpu")

    judged = judge(checkpoint, exam, candidates, ExportOptions(budget_minutes=1e-6), tmp_path)

    assert judged.served.name == "fp32"
    assert judged.verdict.exam_rows == len(exam.rows)
    assert "no time was left of the budget" in judged.not_tried["int8-row-wise"]
