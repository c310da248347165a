"""Running loaded sessions on a device, through IO binding: buffers that stay, CUDA graphs.

Shapes are rounded up to a `Bucket`, which has buffers of its own on the device; its kernels are
recorded once as a CUDA graph and replayed by one launch. Knows neither how a session is loaded nor
which provider runs it.

What ONNX Runtime asks for, and what follows here:

- A session keeps a recorded graph with the thread that recorded it, and cannot be replayed by two
  threads at once. So a stream is a session (its weights are on the device once a stream) and a
  thread that alone runs it.
- A replay reads and writes the addresses of the recording. So the buffers of a bucket stay.
- While one thread records, no other may allocate or copy on the device (cudaStreamCaptureModeGlobal).
  So a recording run waits until it is alone in the process.
- Its Python interface gives no page-locked host memory for the built-in CUDA provider (1.32). So
  inputs are copied from plain arrays, which costs the driver a copy of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort

from serving.encoding import Encoding, Logits, blank, failure, padded, write_padded
from serving.errors import EngineFailed

_FINE_TOKENS, _COARSE_TOKENS, _FINE_UP_TO = 16, 64, 128
# Batches to 64 at every length to 192, or to 16 at every length to 512 and some.
_MOST_BUCKETS = 64
_NO_GRAPH = -1  # to ONNX Runtime: neither record nor replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A padded shape: so many texts of so many tokens."""

    batch: int
    length: int


def bucket_of(batch: int, length: int, *, max_length: int) -> Bucket:
    """The smallest bucket for *batch* texts of at most *length* tokens.

    Batches are powers of two, so less than half of the rows are padding. Lengths are multiples of
    16 up to 128 (at most 15 tokens of padding), then of 64 (at most 63, less than a third of the
    row); none is above *max_length*, beyond which a model has no positions, unless *length* is.
    """
    step = _FINE_TOKENS if length <= _FINE_UP_TO else _COARSE_TOKENS
    rounded = -(-length // step) * step
    return Bucket(batch=1 << (batch - 1).bit_length(), length=max(length, min(rounded, max_length)))


class CudaSession:
    """A `Session` on a device: k streams, each a session, a thread and the buffers of its buckets."""

    def __init__(
        self,
        sessions: Sequence[Any],
        *,
        max_length: int,
        record: bool,
        most_buckets: int = _MOST_BUCKETS,
        device: str = "cuda",
    ) -> None:
        """A stream a session.

        max_length: tokens of the longest text. record: CUDA graphs, which the sessions must have
        enabled. most_buckets: a stream keeps the buffers of so many, the first that come; other
        shapes get new ones each time and are not recorded. device: where the buffers lie, in ONNX
        Runtime's words; "cpu" runs the same binding there.
        """
        self._streams: SimpleQueue[_Stream] = SimpleQueue()
        for session in sessions:
            self._streams.put(
                _Stream(
                    session,
                    max_length=max_length,
                    record=record,
                    most_buckets=most_buckets,
                    device=device,
                )
            )

    def run(self, encodings: Sequence[Encoding], *, pad_token_id: int = 0) -> Logits:
        """As `Session.run`: real rows only, float32 whatever the graph's type."""
        stream = self._streams.get()
        try:
            return stream.run(encodings, pad_token_id)
        except Exception as error:
            raise EngineFailed(failure(encodings, error)) from error
        finally:
            self._streams.put(stream)


class _Stream:
    """One session, and the one thread that runs it."""

    def __init__(
        self, session: Any, *, max_length: int, record: bool, most_buckets: int, device: str
    ) -> None:
        self._session = session
        self._max_length = max_length
        self._record = record
        self._most_buckets = most_buckets
        self._device = device
        self._begun = 0  # buckets that were to be kept; the newest one's graph has this number
        self._kept: dict[Bucket, _Buffers] = {}
        self._labels: int | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    def run(self, encodings: Sequence[Encoding], pad_token_id: int) -> Logits:
        return self._thread.submit(self._run, encodings, pad_token_id).result()

    def _run(self, encodings: Sequence[Encoding], pad_token_id: int) -> Logits:
        longest = max(len(encoding) for encoding in encodings)
        bucket = bucket_of(len(encodings), longest, max_length=self._max_length)
        buffers = self._kept.get(bucket)
        new = buffers is None and self._begun < self._most_buckets
        records = new and self._record
        with _GATE.alone() if records else _GATE.beside():
            if buffers is None:
                self._begun += new
                graph_id = self._begun if records else _NO_GRAPH
                buffers = self._allocate(bucket, graph_id, encodings[:1], pad_token_id)
            # Of a bucket, the first run warms up, records and answers, all inside ONNX Runtime.
            logits = buffers.run(self._session, encodings, pad_token_id)
        # Not before: a run that failed may have left half a recording under its number.
        if new:
            self._kept[bucket] = buffers
        return logits

    def _allocate(
        self, bucket: Bucket, graph_id: int, some: Sequence[Encoding], pad_token_id: int
    ) -> _Buffers:
        node = self._session.get_outputs()[0]
        if self._labels is None:
            self._labels = self._count_labels(node, padded(some, pad_token_id=pad_token_id))
        return _Buffers(
            self._session, bucket, labels=self._labels, graph_id=graph_id, device=self._device
        )

    def _count_labels(self, node: Any, feed: Mapping[str, Any]) -> int:
        """The width of the output: as the graph says, else as one plain run of one text shows."""
        if isinstance(node.shape[-1], int):
            return node.shape[-1]
        given = {name.name: feed[name.name] for name in self._session.get_inputs()}
        (logits,) = self._session.run([node.name], given, _run_options(_NO_GRAPH))
        return int(logits.shape[-1])


class _Buffers:
    """The memory of one bucket, bound once: arrays on the host, inputs and output on the device."""

    def __init__(
        self, session: Any, bucket: Bucket, *, labels: int, graph_id: int, device: str
    ) -> None:
        node = session.get_outputs()[0]
        kind = np.float16 if node.type == "tensor(float16)" else np.float32
        allocate = ort.OrtValue.ortvalue_from_shape_and_type
        shape = (bucket.batch, bucket.length)
        self._host = blank(*shape)
        self._inputs = {
            given.name: allocate(shape, np.int64, device, 0) for given in session.get_inputs()
        }
        self._output = allocate((bucket.batch, labels), kind, device, 0)
        self._options = _run_options(graph_id)
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(node.name, self._output)

    def run(self, session: Any, encodings: Sequence[Encoding], pad_token_id: int) -> Logits:
        write_padded(self._host, encodings, pad_token_id=pad_token_id)
        for name, value in self._inputs.items():
            value.update_inplace(self._host[name])
        session.run_with_iobinding(self._binding, self._options)
        # A copy on every device: the next run writes over the output.
        return np.array(self._output.numpy()[: len(encodings)], dtype=np.float32)


def _run_options(graph_id: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


class _Gate:
    """Many runs beside each other, or one recording alone; who wants to record goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._recording = 0

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._recording += 1
            try:
                self._changed.wait_for(lambda: not self._running)
                yield  # the lock is held: nobody starts
            finally:
                self._recording -= 1
                self._changed.notify_all()


_GATE = _Gate()  # of the process, as the rule it keeps
