"""Laws of the device path: real IO binding on the CPU, and ONNX Runtime's rules of CUDA graphs."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from serving.cuda import Bucket, CudaSession, bucket_of
from serving.encoding import INPUTS, Encoding, Logits, blank, padded, write_padded
from serving.errors import EngineFailed
from serving.package import Package
from serving.session import open_session

MAX_LENGTH = 32  # the tiny package's
MANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.lists(st.integers(2, 14), min_size=1, max_size=MAX_LENGTH).map(
    lambda ids: Encoding(ids=tuple(ids), type_ids=(0,) * len(ids))
)
batches = st.lists(texts, min_size=1, max_size=9)
sizes = st.integers(1, 3000)


def text(length: int) -> Encoding:
    """A text of so many tokens, of which no two lengths mean the same."""
    return Encoding(ids=tuple(2 + n % 13 for n in range(length)), type_ids=(0,) * length)


@dataclass
class Replaying:
    """A real session that keeps ONNX Runtime's rules of recorded graphs, as its CUDA provider does.

    The first run of a number records the binding; later ones compute on what was recorded, whatever
    binding is given. Every run is noted: (number, the binding's id, thread).
    """

    session: Any
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    bindings: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    recorded: dict[int, Any] = field(default_factory=dict)
    during: Callable[[bool], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        """As ONNX Runtime's; `during` is told whether this run records."""
        number = int(options.get_run_config_entry("gpu_graph_id"))
        self.runs.append((number, id(binding), threading.get_ident()))
        self.bindings.add(binding)
        self.during(number != -1 and number not in self.recorded)
        replayed = binding if number == -1 else self.recorded.get(number, binding)
        self.session.run_with_iobinding(replayed, options)
        if number != -1:
            self.recorded[number] = replayed


def replaying(path: Path, count: int) -> list[Replaying]:
    """*count* sessions of the graph at *path*."""
    return [Replaying(on_cpu(path)) for _ in range(count)]


def on_cpu(path: Path) -> Any:
    """A plain session."""
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def here(sessions: Sequence[Any], *, most_buckets: int = 64) -> CudaSession:
    """The device path with its buffers in this machine's memory."""
    return CudaSession(
        sessions, max_length=MAX_LENGTH, record=True, most_buckets=most_buckets, device="cpu"
    )


@MANY
@given(batch=sizes, length=sizes, max_length=sizes)
def test_a_bucket_holds_its_shape_and_little_more(batch: int, length: int, max_length: int) -> None:
    """Less than twice the rows; 15 tokens more to 128, then 63; never beyond the model's length."""
    bucket = bucket_of(batch, length, max_length=max_length)

    assert batch <= bucket.batch < 2 * batch
    assert length <= bucket.length <= max(length, max_length)
    assert bucket.length - length <= (15 if length <= 128 else 63)
    assert bucket_of(bucket.batch, bucket.length, max_length=max_length) == bucket


@MANY
@given(batch=sizes, length=sizes, more=sizes, max_length=sizes)
def test_buckets_are_monotone(batch: int, length: int, more: int, max_length: int) -> None:
    """A larger shape never gets a smaller bucket."""
    small = bucket_of(batch, length, max_length=max_length)
    wide = bucket_of(batch + more, length, max_length=max_length)
    long = bucket_of(batch, length + more, max_length=max_length)

    assert small.batch <= wide.batch
    assert small.length <= long.length


def test_buckets_are_few() -> None:
    """Any batch to 32 of any texts to 256 tokens gets one of 60 shapes."""
    buckets = {bucket_of(b, n, max_length=256) for b in range(1, 33) for n in range(1, 257)}

    assert len(buckets) == 6 * 10
    assert Bucket(batch=32, length=256) in buckets


@MANY
@given(before=batches, after=batches, pad=st.integers(0, 14))
def test_used_arrays_hold_nothing_of_before(
    before: list[Encoding], after: list[Encoding], pad: int
) -> None:
    """Texts stand as in arrays made for them; every other row attends to one padding token."""
    feed = blank(16, MAX_LENGTH)
    write_padded(feed, before, pad_token_id=1)
    write_padded(feed, after, pad_token_id=pad)
    exact = padded(after, pad_token_id=pad)
    rows, length = exact["input_ids"].shape

    for name, beyond in zip(INPUTS, (pad, 0, 0), strict=True):
        np.testing.assert_array_equal(feed[name][:rows, :length], exact[name])
        assert (feed[name][:rows, length:] == beyond).all()
    assert (feed["attention_mask"][rows:].sum(axis=1) == 1).all()
    assert (feed["input_ids"][rows:] == pad).all()


@MANY
@given(asked=st.lists(batches, min_size=1, max_size=6))
def test_answers_are_the_plain_sessions(package: Package, asked: list[list[Encoding]]) -> None:
    """Recorded, replayed or beyond the bound: the bits of the unpadded CPU run, real rows only."""
    plain = open_session(package.model_path, threads=1)
    device = here(replaying(package.model_path, 1), most_buckets=3)

    for batch in asked + asked:
        found = device.run(batch, pad_token_id=7)

        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, plain.run(batch))


def test_a_graph_a_bucket_and_no_more_than_allowed(package: Package) -> None:
    """Each of the first buckets has one number and one binding for ever; the rest keep nothing."""
    (session,) = sessions = replaying(package.model_path, 1)
    device = here(sessions, most_buckets=3)
    shapes = [(1, 3), (2, 20), (5, 3), (9, 3), (1, 16), (2, 32), (9, 9), (17, 30)]
    expected: dict[Bucket, int] = {}
    for batch, length in shapes * 3:
        device.run([text(length)] * batch)
        bucket = bucket_of(batch, length, max_length=MAX_LENGTH)
        if len(expected) < 3:
            expected.setdefault(bucket, len(expected) + 1)

        assert session.runs[-1][0] == expected.get(bucket, -1)

    kept = {(number, binding) for number, binding, _ in session.runs if number != -1}
    assert sorted(number for number, _ in kept) == [1, 2, 3]
    gc.collect()
    assert len(session.bindings) == 3


@pytest.mark.parametrize("most_buckets", [0, 64])
def test_streams_share_nothing(package: Package, most_buckets: int) -> None:
    """Six callers on three streams: a session is run by one thread, and on bindings of its own."""
    sessions = replaying(package.model_path, 3)
    device = here(sessions, most_buckets=most_buckets)
    asked = [[text(1 + n % 31)] * (1 + n % 5) for n in range(120)]
    plain = open_session(package.model_path, threads=1)

    with ThreadPoolExecutor(6) as callers:
        found: list[Logits] = list(callers.map(device.run, asked))

    for batch, logits in zip(asked, found, strict=True):
        np.testing.assert_array_equal(logits, plain.run(batch))
    threads = [{thread for _, _, thread in session.runs} for session in sessions]
    assert [len(own) for own in threads] == [1, 1, 1]
    assert len(set.union(*threads)) == 3
    kept = [id(binding) for session in sessions for binding in session.recorded.values()]
    assert len(kept) == len(set(kept))


def test_a_recording_waits_until_it_is_alone(package: Package) -> None:
    """While another stream runs, a first run does not start; afterwards it does."""
    busy, quiet = replaying(package.model_path, 2)
    running, release, recording = threading.Event(), threading.Event(), threading.Event()

    def hold(_: bool) -> None:
        running.set()
        assert release.wait(60)

    busy.during = hold
    quiet.during = lambda _: recording.set()
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(here([busy], most_buckets=0).run, [text(3)])
        assert running.wait(60)
        second = callers.submit(here([quiet]).run, [text(3)])
        started_early = recording.wait(0.2)
        release.set()

        np.testing.assert_array_equal(first.result(60), second.result(60))
    assert not started_early
    assert recording.is_set()


def test_a_failed_recording_is_not_replayed(package: Package) -> None:
    """After a first run that failed, the bucket is recorded anew, under a number not used yet."""
    (session,) = sessions = replaying(package.model_path, 1)
    device = here(sessions)
    with pytest.raises(EngineFailed, match="batch of 1"):
        device.run([Encoding(ids=(10**6,), type_ids=(0,))])
    for _ in range(2):
        found = device.run([text(3)])

    np.testing.assert_array_equal(found, open_session(package.model_path, threads=1).run([text(3)]))
    assert [number for number, _, _ in session.runs] == [1, 2, 2]


def test_half_precision_comes_back_as_single(package: Package, tmp_path: Path) -> None:
    """A graph with float16 logits answers in float32, within float16's rounding."""
    halved = _ending_with(package, tmp_path, "Cast", TensorProto.FLOAT16, to=TensorProto.FLOAT16)
    found = here([on_cpu(halved)]).run([text(5), text(9)])

    assert found.dtype == np.float32
    plain = open_session(package.model_path, threads=1).run([text(5), text(9)])
    np.testing.assert_allclose(found, plain, rtol=1e-3)


def test_a_graph_that_does_not_say_how_many_labels(package: Package, tmp_path: Path) -> None:
    """A symbolic width is found out by a run."""
    every = numpy_helper.from_array(np.ones(3, dtype=np.bool_), "every")
    path = _ending_with(package, tmp_path, "Compress", TensorProto.FLOAT, every, axis=1)
    session = on_cpu(path)

    assert not isinstance(session.get_outputs()[0].shape[-1], int)
    found = here([session]).run([text(5), text(9)])
    plain = open_session(package.model_path, threads=1).run([text(5), text(9)])
    np.testing.assert_array_equal(found, plain)


def _ending_with(
    package: Package, folder: Path, kind: str, given_type: int, *more: Any, **attributes: Any
) -> Path:
    """The tiny graph with one more node behind its logits."""
    model = onnx.load(str(package.model_path))
    names = ["logits", *(constant.name for constant in more)]
    model.graph.initializer.extend(more)
    model.graph.node.append(helper.make_node(kind, names, ["out"], **attributes))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", given_type, ["batch", "labels"]))
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    return path
