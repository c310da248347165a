"""Several workers do what one would: the same rows, the same steps, the same model."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorWithPadding, TrainerCallback

from registry import store
from training.base_model import find_base_model
from training.batches import length_grouped, share_of_batch
from training.classifier import load_classifier, load_tokenizer
from training.dataset import load_split
from training.device import device_for
from training.encode import EncodedRows, encode
from training.errors import DeviceError, FitFailed, WrongOption
from training.losses import batch_loss
from training.metrics import multi_label_scores
from training.options import TrainOptions
from training.resume import last_complete
from training.shared import ROW_WEIGHTS, Share, share_loader
from training.train import train
from training.trainer import Fit, FitData, FitPlan, fit
from training.workers import _as_ours

COLOURS = ("red", "green", "blue")
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200).map(np.array)
quickly = settings(deadline=None, max_examples=60)


def rows_of(lengths: np.ndarray) -> EncodedRows:
    """Rows of those lengths, each with its own number as target."""
    return EncodedRows(
        ids=np.zeros(lengths.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        type_ids=None,
        targets=np.arange(len(lengths)),
    )


@quickly
@given(st.integers(1, 70), st.integers(1, 9))
def test_a_batch_is_shared_out_once(rows: int, workers: int) -> None:
    """All workers together have each row once, with the weight that makes their mean the batch's."""
    batch = np.random.default_rng(rows).permutation(rows)
    shares = [share_of_batch(batch, rank=rank, count=workers) for rank in range(workers)]
    counted = [row for numbers, weights in shares for row in numbers[weights > 0]]
    weights = np.concatenate([weights for _, weights in shares])
    sizes = [len(numbers) for numbers, _ in shares]

    assert sorted(counted) == sorted(batch)
    assert weights[weights > 0] == pytest.approx(workers / rows)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


@quickly
@given(LENGTHS, st.integers(1, 8), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_of_all_workers_is_that_of_one(
    lengths: np.ndarray, share_size: int, workers: int, epoch: int
) -> None:
    """Step by step, the rows that workers have together are the batch that one would have."""
    size = share_size * workers
    order = length_grouped(lengths, batch_size=size, seed=3, epoch=epoch)
    expected = [set(order[start : start + size]) for start in range(0, len(order), size)]
    loaders = [
        share_loader(
            rows_of(lengths), list, batch_size=size, seed=3, share=Share(rank=rank, count=workers)
        )
        for rank in range(workers)
    ]
    for loader in loaders:
        loader.set_epoch(epoch)  # type: ignore[attr-defined]
    seen: list[Counter[int]] = [
        Counter(row["labels"] for part in parts for row in part if row[ROW_WEIGHTS])
        for parts in zip(*loaders, strict=True)
    ]

    assert {len(loader) for loader in loaders} == {len(expected)}
    assert [set(step) for step in seen] == expected
    assert all(count == 1 for step in seen for count in step.values())


@quickly
@given(st.integers(1, 20), st.integers(1, 5), st.booleans(), st.booleans())
def test_the_mean_of_the_workers_is_the_gradient_of_the_batch(
    rows: int, workers: int, several_labels: bool, weigh: bool
) -> None:
    """However unevenly a batch divides, averaging what workers found gives what one would find."""
    generator = torch.Generator().manual_seed(rows)
    texts = torch.randn(rows, 4, generator=generator)
    one = torch.randint(3, (rows,), generator=generator)
    targets = torch.nn.functional.one_hot(one, 3).float() if several_labels else one
    weights = torch.tensor([0.5, 1.0, 3.0]) if weigh else None
    head = torch.randn(4, 3, generator=generator, requires_grad=True)
    (whole,) = torch.autograd.grad(batch_loss(texts @ head, targets, weights), head)
    parts = []
    for rank in range(workers):
        numbers, shares = share_of_batch(np.arange(rows), rank=rank, count=workers)
        loss = batch_loss(
            texts[numbers] @ head, targets[numbers], weights, torch.from_numpy(shares)
        )
        parts.append(torch.autograd.grad(loss, head)[0])

    torch.testing.assert_close(torch.stack(parts).mean(dim=0), whole, atol=1e-6, rtol=1e-5)


@contextmanager
def one_core() -> Iterator[None]:
    """A model this small only waits for a second thread, long where others want the core."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


CHILD = """
    import pickle, sys
    from pathlib import Path
    from torch import distributed
    from transformers import TrainerCallback
    from training.shared import Share
    from training.trainer import fit

    folder, rank, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    model, data, plans = pickle.loads((folder / "fits").read_bytes())
    distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=count)
    for number, plan in enumerate(plans):
        share = Share(rank=rank, count=count)
        done = fit(pickle.loads(model), data, plan, TrainerCallback(), share)
        (folder / f"fit-{number}-{rank}").write_bytes(pickle.dumps(done))
"""


def run_children(folder: Path, workers: int) -> None:
    """`CHILD` in so many processes, one thread each."""
    children = []
    for rank in range(workers):
        # As Ray Train says it to accelerate, which would call the device cpu:0 and not find it again.
        ranks: dict[str, object] = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": workers,
            "OMP_NUM_THREADS": 1,
        }
        ranks |= {"LOCAL_WORLD_SIZE": workers, "ACCELERATE_TORCH_DEVICE": "cpu"}
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), str(rank)]
        children.append(
            subprocess.Popen(
                [*command, str(workers)],
                env=os.environ | {name: str(value) for name, value in ranks.items()},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [child.communicate(timeout=300)[1] for child in children]

    assert [child.returncode for child in children] == [0] * workers, "\n".join(said)


class Interrupted(TrainerCallback):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(
        self,
        args: Any,  # noqa: ARG002  # Trainer's own signature
        state: Any,
        control: Any,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """After a resume point, between two others."""
        if state.global_step == self._step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def multi_label(tiny_bert: Path, several_colours: Path) -> tuple[Any, FitData]:
    """A model and 393 training rows of several labels, 16 a batch: nine in the last."""
    torch.manual_seed(0)
    base = find_base_model(str(tiny_bert))
    model = load_classifier(base, task="multi_label", labels=COLOURS, attention=None)
    tokenizer = load_tokenizer(base)
    split = load_split(several_colours, "train")
    rows = encode(split, tokenizer, max_length=64, labels=len(COLOURS))
    numbers = np.arange(len(rows))
    return model, FitData(
        train=rows.select(numbers[:393]),
        validation=rows.select(numbers[393:]),
        collate=DataCollatorWithPadding(tokenizer),
        score=partial(multi_label_scores, labels=COLOURS),
    )


@pytest.fixture
def plan(tmp_path: Path) -> FitPlan:
    """An epoch and more of 25 steps, the last step of which is short."""
    return FitPlan(
        work=tmp_path / "work",
        steps=40,
        batch_size=16,
        learning_rate=5e-3,
        seed=1,
        device="cpu",
        bf16=False,
        patience=None,
        class_weights=np.array([1.0, 2.0, 3.0], dtype=np.float32),
        resume_from=None,
    )


def curve(done: Fit) -> dict[tuple[str, int], float]:
    """(metric, step) -> value."""
    return {(name, step): value for name, step, value in done.history}


def test_a_fit_that_one_begins_is_ended_by_two(
    multi_label: tuple[Any, FitData], plan: FitPlan, tmp_path: Path
) -> None:
    """Interrupted alone and resumed by two, a fit has the curve and the weights of an undisturbed one.

    Float sums in another order are all that differs: 1e-3 after 40 steps. Beside it, a fit that gets
    no better is ended by its patience at one step by all.
    """
    model, data = multi_label
    alone = deepcopy(model)
    with one_core():
        undisturbed = fit(alone, data, replace(plan, work=tmp_path / "alone"), TrainerCallback())
        with pytest.raises(KeyboardInterrupt):
            fit(deepcopy(model), data, plan, Interrupted(28))
    begun = replace(plan, resume_from=last_complete(plan.work))
    hopeless = replace(
        plan, work=tmp_path / "hopeless", learning_rate=0.5, patience=1, steps=200, seed=2
    )
    fits = (pickle.dumps(model), data, [begun, hopeless])
    (tmp_path / "fits").write_bytes(pickle.dumps(fits))
    run_children(tmp_path, 2)
    ended = deepcopy(model)
    done = fit(ended, data, replace(plan, resume_from=last_complete(plan.work)), TrainerCallback())
    stopped: list[Fit] = [
        pickle.loads((tmp_path / f"fit-1-{rank}").read_bytes()) for rank in range(2)
    ]

    assert begun.resume_from is not None
    assert begun.resume_from.name == "checkpoint-24"
    assert (done.steps, done.best_step) == (undisturbed.steps, undisturbed.best_step)
    assert curve(done) == pytest.approx(curve(undisturbed), abs=1e-3)
    torch.testing.assert_close(ended.state_dict(), alone.state_dict(), atol=1e-3, rtol=0)
    assert stopped[0].steps == stopped[1].steps < hopeless.steps
    assert [one.best_step for one in stopped] == [stopped[0].best_step] * 2


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Until *condition* holds; fails when *child* ends before. pytest's own timeout bounds it."""
    while not condition():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)


def test_ray_train_ends_what_ctrl_c_cut_short(
    colours: Path, tiny_bert: Path, miniml_home: Path
) -> None:
    """`--workers 2`: Ctrl-C leaves no process and a resume point; resumed, the answers are one's."""
    options = TrainOptions(
        dataset=str(colours),
        model_id=str(tiny_bert),
        iterations=120,
        batch_size=16,
        learning_rate=1e-3,
        device="cpu",
    )
    given = f"--dataset {colours} --model-id {tiny_bert} --iterations 120 --batch-size 16"
    given += " --learning-rate 1e-3 --device cpu --workers 2 --output-name two --json"
    command = [sys.executable, "-m", "miniml", "train", *given.split()]
    popen = partial(subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with popen(command) as child:
        points = partial(miniml_home.glob, "work/train/*/checkpoint-*/trainer_state.json")
        wait_for(lambda: any(points()), child)
        started = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
    alive = psutil.wait_procs(started, timeout=60)[1]
    point = last_complete(next(miniml_home.glob("work/train/*")))

    assert child.returncode == 130, said
    assert "--resume goes on at step" in " ".join(said.split())
    assert (len(started) > 2, alive) == (True, [])
    assert point is not None

    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    two = json.loads(resumed.stdout.splitlines()[-1])
    with one_core():
        one = train(replace(options, output_name="one"))
    metrics = one.training["metrics"]

    assert two["training"]["resumed_from_step"] > 0
    assert two["training"]["steps"] == one.training["steps"]
    assert two["training"]["config"]["workers"] == 2
    # Halves of a batch round otherwise than the whole: by 2^-24 of a number, or 2^-9 where the CPU has bf16.
    rounding = 1e-2 if two["training"]["config"]["bf16"] else 1e-3
    assert two["training"]["metrics"]["loss"] == pytest.approx(metrics["loss"], abs=rounding)
    assert two["training"]["metrics"]["accuracy"] == metrics["accuracy"]
    assert sorted(path.name for path in miniml_home.glob("work/train/*")) == []
    assert store.resolve("two/1", kind="checkpoint").digest != one.version.digest


def test_workers_are_no_part_of_what_is_made(options: TrainOptions) -> None:
    """As threads, they change how a checkpoint is made, so `--reuse` finds it for any number."""
    with one_core():
        first = train(options)

    assert train(replace(options, workers=2, reuse=True)).version.digest == first.version.digest


@pytest.fixture
def options(colours: Path, tiny_bert: Path) -> TrainOptions:
    """A single step."""
    return TrainOptions(dataset=str(colours), model_id=str(tiny_bert), iterations=1, device="cpu")


def test_what_cannot_be_shared_is_refused(options: TrainOptions) -> None:
    """A batch that does not divide, no workers, and a device without a way between them."""
    with pytest.raises(WrongOption, match=r"--batch-size 16 .* --workers 3; 18 can"):
        train(replace(options, batch_size=16, workers=3))
    with pytest.raises(WrongOption, match="--workers is 0"):
        train(replace(options, workers=0))
    if not torch.backends.mps.is_available():
        with pytest.raises(DeviceError, match="no mps"):
            device_for("mps", workers=2)


def test_one_worker_needs_no_ray() -> None:
    """Where `--workers` is not asked for, Ray is not even imported."""
    code = "import sys, training.run, training.train; print({'ray', 'training.workers'} & {*sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "set()"


def test_a_failure_of_a_worker_is_said_as_ours(tmp_path: Path) -> None:
    """The one that a user can mend, not the silence that the others die of; a bug stays a bug."""
    from ray.exceptions import ActorDiedError
    from ray.train import ControllerError, WorkerGroupError

    def said(*failures: Exception) -> Exception | None:
        return _as_ours(WorkerGroupError("", dict(enumerate(failures))), tmp_path)

    silence = RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    full = OSError(errno.ENOSPC, "No space left on device")
    memory = FitFailed("The device has too little memory.")

    assert said(silence, memory) is memory
    assert said(full, silence) is full
    assert said(RuntimeError("shapes do not match")) is None
    assert "--resume starts anew" in str(said(silence))
    assert "--resume starts anew" in str(said(silence, ActorDiedError()))
    assert "no room" in str(_as_ours(ControllerError(RuntimeError("no room\n...")), tmp_path))
