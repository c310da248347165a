"""What a training run leaves behind, whatever happens to it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from registry import store
from registry.artifact import file_sha256, verify
from registry.errors import ArtifactExists, BadReference, CorruptArtifact
from training.dataset import load_split
from training.errors import BaseModelError, DeviceError, WrongOption
from training.options import TrainOptions
from training.train import TrainResult, train

STEPS = 60


@pytest.fixture(autouse=True)
def miniml_home(module_home: Path) -> Path:
    """Instead of the fresh home that every test has elsewhere."""
    return module_home


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """A model this small only waits for a second thread."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def options(colours: Path, tiny_bert: Path) -> TrainOptions:
    """Enough to learn the colours, in a second or two."""
    return TrainOptions(
        dataset=str(colours),
        model_id=str(tiny_bert),
        iterations=STEPS,
        batch_size=16,
        learning_rate=5e-3,
        device="cpu",
    )


@pytest.fixture(scope="module")
def short(options: TrainOptions, module_home: Path) -> TrainResult:
    """A dozen steps, stopped before anything is perfect; also written to `out` in the home."""
    output = module_home / "out"
    return train(replace(options, iterations=12, output=output, output_name="short"))


def weights_sha256(result: TrainResult) -> str:
    """Digest of the weights alone; the artifact's own also covers how long it took."""
    return file_sha256(result.folder / "model.safetensors")


def values(result: TrainResult, metric: str) -> list[float]:
    """One curve."""
    return [value for name, _, value in result.training["history"] if name == metric]


def exam(result: TrainResult) -> list[dict[str, Any]]:
    """`exam.jsonl`, read."""
    lines = (result.folder / "exam.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def logits_one_by_one(result: TrainResult) -> np.ndarray[Any, Any]:
    """What the saved folder alone, opened by transformers, answers to each exam row by itself."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(result.folder)  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(
        result.folder, use_safetensors=True
    ).train(mode=False)
    answers = []
    with torch.no_grad():
        for row in exam(result):
            batch = tokenizer(row["text"], row.get("text_pair"), return_tensors="pt")
            answers.append(model(**batch).logits[0].numpy())
    return np.stack(answers)


def test_separable_labels_are_learned(options: TrainOptions) -> None:
    """Labels that a word decides are learned without a mistake, and the loss falls."""
    result = train(options)

    assert result.training["metrics"]["accuracy"] == 1
    assert values(result, "train_loss")[-1] < values(result, "train_loss")[0] / 2
    assert result.training["steps"] == STEPS


def test_the_same_seed_gives_the_same_weights(options: TrainOptions) -> None:
    """Twice the same is bit for bit the same; another seed is something else."""
    first, again, other = (train(replace(options, iterations=6, seed=seed)) for seed in (7, 7, 8))

    assert weights_sha256(first) == weights_sha256(again)
    assert weights_sha256(first) != weights_sha256(other)


CHILD = """
    import os, sys
    from transformers import Trainer
    from training import run
    from training.options import TrainOptions
    from training.train import train

    number, moment, options = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    save, saves = Trainer._save_rng_state, []

    def cut_short_saving(self, folder):
        saves.append(folder)
        if len(saves) == 2:  # weights and optimizer are on disk, the state is not
            os.kill(os.getpid(), number)
        save(self, folder)

    def cut_short_examining(*_, **__):
        os.kill(os.getpid(), number)

    if moment == "saving":
        Trainer._save_rng_state = cut_short_saving
    else:
        run.predict_logits = cut_short_examining
    train(eval(options))
"""


@pytest.mark.parametrize(
    ("name", "moment"), [("SIGKILL", "saving"), ("SIGINT", "saving"), ("SIGKILL", "examining")]
)
def test_a_run_cut_short_goes_on_as_if_nothing_was(
    options: TrainOptions, miniml_home: Path, name: str, moment: str
) -> None:
    """Cut short anywhere, a run leaves no artifact; resumed, it ends with the very same weights."""
    number = signal.Signals[name]
    options = replace(options, output_name=f"{name}-{moment}")
    child = [sys.executable, "-c", textwrap.dedent(CHILD), str(int(number)), moment, repr(options)]
    result = subprocess.run(child, capture_output=True, text=True, check=False)
    points = list(miniml_home.glob("work/train/*/checkpoint-*"))
    whole = [point for point in points if (point / "trainer_state.json").exists()]

    assert result.returncode == -number, result.stderr
    assert store.list_versions(kind="checkpoint", name=options.output_name) == []
    if moment == "saving":
        assert len(whole) == 1
        assert name == "SIGINT" or len(points) == 2  # a kill leaves the torn one behind

    resumed = train(replace(options, resume=True))
    points = list(miniml_home.glob("work/train/*/checkpoint-*"))
    undisturbed = train(options)

    assert resumed.training["steps"] == STEPS
    assert 0 < resumed.training["resumed_from_step"] <= STEPS
    assert (resumed.training["resumed_from_step"] == STEPS) is (moment == "examining")
    assert weights_sha256(resumed) == weights_sha256(undisturbed)
    assert values(resumed, "validation_loss") == values(undisturbed, "validation_loss")
    assert points == []


def test_without_resume_a_run_starts_anew(options: TrainOptions, miniml_home: Path) -> None:
    """Asked to resume where nothing is, or not asked to, training takes all its steps."""
    result = train(replace(options, iterations=4, resume=True))

    assert result.training["resumed_from_step"] == 0
    assert result.training["steps"] == 4
    assert list(miniml_home.glob("work/train/*")) == []


def test_the_saved_model_is_the_one_that_was_examined(short: TrainResult) -> None:
    """The folder alone, opened by transformers, gives the metrics that `training.json` claims."""
    metrics, labels = short.training["metrics"], short.training["labels"]
    logits = logits_one_by_one(short)
    truths = np.array([labels.index(row["labels"][0]) for row in exam(short)])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -np.log(chances[np.arange(len(truths)), truths])

    assert metrics["accuracy"] == np.mean(logits.argmax(axis=1) == truths)
    assert metrics["loss"] == pytest.approx(losses.mean(), abs=1e-5)
    assert metrics["loss"] > 0.01  # not so perfect that every model would agree


def test_the_best_weights_are_kept(options: TrainOptions) -> None:
    """What is saved is of the step with the lowest validation loss, not of the last."""
    result = train(replace(options, iterations=30, learning_rate=0.5))
    looks = [
        (value, step)
        for name, step, value in result.training["history"]
        if name == "validation_loss"
    ]

    assert result.training["best_step"] == min(looks)[1]


def test_the_exam_is_the_test_split(short: TrainResult, colours: Path) -> None:
    """`exam.jsonl` holds every test row in order, with the names of its labels."""
    rows, labels = load_split(colours, "test"), short.training["labels"]

    assert exam(short) == [{"text": row["text"], "labels": [labels[row["label"]]]} for row in rows]


def test_several_labels(options: TrainOptions, several_colours: Path) -> None:
    """Multi-label: any number of labels is learned, and the folder says that it is multi-label."""
    result = train(replace(options, dataset=str(several_colours), iterations=150))
    config = json.loads((result.folder / "config.json").read_bytes())
    rows, labels = load_split(several_colours, "test"), result.training["labels"]

    assert config["problem_type"] == "multi_label_classification"
    assert result.training["metrics"]["exact_match"] > 0.9
    assert [row["labels"] for row in exam(result)] == [
        [labels[number] for number in row["labels"]] for row in rows
    ]
    assert any(row["labels"] == [] for row in exam(result))


def test_pairs(options: TrainOptions, colour_pairs: Path) -> None:
    """Pairs: both texts are read, told apart by their type, and kept in the exam."""
    result = train(replace(options, dataset=str(colour_pairs), iterations=2))
    logits = logits_one_by_one(result)
    labels = result.training["labels"]
    truths = np.array([labels.index(row["labels"][0]) for row in exam(result)])

    assert all(row["text"] and row["text_pair"] for row in exam(result))
    assert result.training["text_pair"] is True
    assert result.training["metrics"]["accuracy"] == np.mean(logits.argmax(axis=1) == truths)


def test_the_artifact_is_whole_and_holds_no_pickle(
    short: TrainResult, options: TrainOptions, miniml_home: Path, colours: Path
) -> None:
    """Sealed, published, copied to --output with the same digest; safetensors and text only."""
    output = miniml_home / "out"
    manifest = verify(output, kind="checkpoint")
    names = set(manifest.files)

    assert manifest.digest == short.version.digest
    assert short.version.reference == "short/1"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {"training.json", "report.html", "exam.jsonl"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert manifest.lineage["dataset_digest"] == verify(colours).digest
    assert manifest.lineage["base_model_sha256"] == short.training["base_model_sha256"]
    with pytest.raises(ArtifactExists):
        train(replace(options, output=output))


def test_the_tokenizer_pads_and_cuts_nothing_by_itself(short: TrainResult) -> None:
    """The saved tokenizer carries no trace of how training batched its texts."""
    document = json.loads((short.folder / "tokenizer.json").read_bytes())

    assert document["padding"] is None
    assert document["truncation"] is None


def test_reuse_returns_what_is_unchanged(options: TrainOptions, tmp_path: Path) -> None:
    """The same inputs and options give the version made before; any other option does not."""
    first = train(replace(options, iterations=1, reuse=True))
    again = train(replace(options, iterations=1, reuse=True, output=tmp_path / "copy"))
    other = train(replace(options, iterations=1, reuse=True, seed=1))

    assert not first.reused
    assert again.reused
    assert again.version.digest == first.version.digest == verify(tmp_path / "copy").digest
    assert not other.reused


def test_class_weights_help_the_rare_label(options: TrainOptions, make_dataset: Any) -> None:
    """Where texts say nothing, weights decide between always answering the common label or not."""
    rows = [{"text": "the", "label": int(number % 8 == 0)} for number in range(160)]
    noise = make_dataset(rows[:128], rows[128:], labels=("common", "rare"), name="noise")
    plain, weighted = (
        train(replace(options, dataset=str(noise), iterations=40, class_weights=weights))
        for weights in (False, True)
    )
    chance = {}
    for name, result in (("plain", plain), ("weighted", weighted)):
        logits = logits_one_by_one(result)[0]
        chance[name] = np.exp(logits[1]) / np.exp(logits).sum()

    assert chance["plain"] < 0.3
    assert chance["weighted"] > 0.4


def test_early_stopping_ends_a_hopeless_run(options: TrainOptions) -> None:
    """A run that gets no better stops before its last step."""
    result = train(replace(options, iterations=100, learning_rate=0.5, early_stopping_patience=1))

    assert result.training["steps"] < 100


def test_length_is_capped_by_the_encoder(short: TrainResult) -> None:
    """No more tokens are read than the encoder has positions for, whatever is asked."""
    assert short.training["config"]["max_length"] == 256
    assert short.training["max_length"] == 64


def test_the_result_speaks_to_people_and_programs(
    options: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON for programs, a table for people, and nothing on stdout before either."""
    result = train(replace(options, iterations=1))
    silent = capsys.readouterr().out
    console = Console(width=300, file=io.StringIO())
    with console.capture() as capture:
        console.print(result)

    assert silent == ""
    assert json.loads(json.dumps(result.document()))["training"]["metrics"]["rows"] == 30
    assert all(name in capture.get() for name in ("red", "green", "accuracy", "report.html"))


WRONG = [
    ({"epochs": 1.0}, WrongOption, "contradict"),
    ({"batch_size": 0}, WrongOption, "--batch-size is 0"),
    ({"iterations": -1}, WrongOption, "--iterations is -1"),
    ({"learning_rate": float("nan")}, WrongOption, "--learning-rate"),
    ({"max_length": 1}, WrongOption, "--max-length"),
    ({"model_id": " "}, WrongOption, "--model-id"),
    ({"model_id": "nobody/nothing"}, BaseModelError, "out of reach"),
    ({"output_name": "a name"}, BadReference, "a name"),
    ({"device": "mps"}, DeviceError, "no mps"),
]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has the device that is asked for")
@pytest.mark.parametrize(("change", "error", "said"), WRONG)
def test_wrong_options_are_refused_in_a_sentence(
    options: TrainOptions, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    """What cannot work is said before any work is done."""
    with pytest.raises(error, match=said) as caught:
        train(replace(options, **change))

    assert caught.value.exit_code == 1  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_no_dataset(short: TrainResult, options: TrainOptions) -> None:
    """A folder of another kind is refused by what it is."""
    with pytest.raises(CorruptArtifact, match="checkpoint"):
        train(replace(options, dataset=str(short.folder)))
