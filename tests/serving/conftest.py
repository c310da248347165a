"""A tiny real package: WordPiece tokenizer, an ONNX graph of a few nodes, golden answers.

Weights are small multiples of 1/8, so that sums are exact in float32 in any order and a text's
logits are bit-equal alone and in any padded batch: what the laws of batching are stated on.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
import redis
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from export.mix import exam_mix
from registry.artifact import Manifest, staged
from serving.access.gate import Gate
from serving.access.keys import KeyRing
from serving.access.metering import Meter
from serving.client import Client
from serving.core import Core
from serving.engine import Engine
from serving.environment import free_ports
from serving.grpc_door import Straight
from serving.lanes import Lanes
from serving.one_write import OneWrite
from serving.package import (
    CARD,
    CONFIG,
    COST,
    EXAM_MIX,
    GATES,
    GOLDEN,
    MODEL,
    TOKENIZER,
    CostGrid,
    GoldenAnswer,
    Package,
    PackageConfig,
    Runtime,
    Task,
    open_package,
)
from serving.protocols.asgi import Endpoint
from serving.protocols.calls import CALLS
from serving.protocols.surface import build_endpoint
from serving.rollout.wanted import PinnedShare
from serving.settings import ServeSettings

WORDS = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was", "and", "##s")
LABELS = ("negative", "neutral", "positive")
GATES_DOCUMENT = {
    "fp32": {"accuracy": 0.5, "macro_f1": 0.5, "model_bytes": 1000},
    "served": {"accuracy": 0.5, "macro_f1": 0.5, "model_bytes": 1000},
    "label_flip_rate": 0.0,
}
GRID = CostGrid(
    batches=(1, 8), lengths=(4, 32), ms=((0.1, 0.2), (0.3, 0.9)), threads=1, machine="test"
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_DIM = 8
REDIS = shutil.which("redis-server")
collect_ignore = ["cluster"]  # minutes: they run when they are named
MakePackage = Callable[..., Package]


def tiny_tokenizer(*, cased: bool = False) -> Tokenizer:
    """BERT's pipeline over a vocabulary of a few words; *cased*: letters are read as they come."""
    vocabulary = {word: i for i, word in enumerate((*_SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def tiny_graph(
    labels: int, *, seed: int = 0, rows: int | None = None, slow: bool = False
) -> onnx.ModelProto:
    """logits = mean of the real tokens' embeddings @ weights; (B, T) -> (B, labels).

    rows: of the embeddings; of a word beyond them the graph fails. slow: tens of milliseconds more.
    """
    rng = np.random.default_rng(seed)
    size = len(WORDS) + len(_SPECIAL) if rows is None else rows
    embeddings = (rng.integers(-8, 9, (size, _DIM)) / 8).astype(np.float32)
    weights = (rng.integers(-8, 9, (_DIM, labels)) / 8).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["tokens", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "time"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "time"], ["counts"], keepdims=1),
        helper.make_node("MatMul", ["sums", "weights"], ["raw"]),
        helper.make_node("Div", ["raw", "counts"], ["logits"] if not slow else ["mean"]),
    ]
    if slow:
        # Zeros times zeros, as many as nobody can know before: else they were computed at loading.
        nodes += [
            helper.make_node("Shape", ["counts"], ["shape"]),
            helper.make_node("Mul", ["shape", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "much"], ["square"]),
            helper.make_node("ConstantOfShape", ["square"], ["zeros"]),
            helper.make_node("MatMul", ["zeros", "zeros"], ["product"]),
            helper.make_node("ReduceSum", ["product"], ["none"], keepdims=0),
            helper.make_node("Add", ["mean", "none"], ["logits"]),
        ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "time"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])
    constants = [
        numpy_helper.from_array(embeddings, "embeddings"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "time"),
        *(
            numpy_helper.from_array(np.array(value), name)
            for name, value in (("zero", [0]), ("much", [700, 700]))
            if slow
        ),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def tiny_config() -> PackageConfig:
    """Single label, batch-invariant."""
    return PackageConfig(
        name="tiny",
        task="single_label",
        text_pair=False,
        labels=LABELS,
        max_length=32,
        pad_token_id=0,
        inputs=("input_ids", "attention_mask"),
        precision="fp32",
        batch_invariant=True,
        base_model="tiny",
    )


def drawn(count: int, seed: int) -> list[str]:
    """Texts of one kind: a few of the words, each as often as the others."""
    draws = random.Random(seed)
    return [" ".join(draws.choices(WORDS, k=draws.randint(2, 6))) for _ in range(count)]


def build_package(
    target: Path,
    config: PackageConfig,
    *,
    golden_shift: float = 0.0,
    exam_rows: int = 200,
    cased: bool = False,
    **graph: Any,
) -> Package:
    """Seal a tiny package at *target*. graph: as in `tiny_graph`.

    golden_shift: plants golden answers that are wrong. exam_rows: 0 leaves out what old ones had not.
    """
    with staged(target, kind="package", lineage={}) as folder:
        onnx.save(tiny_graph(len(config.labels), **graph), str(folder / MODEL))
        tiny_tokenizer(cased=cased).save(str(folder / TOKENIZER))
        (folder / CONFIG).write_bytes(config.to_bytes())
        (folder / COST).write_bytes(GRID.to_bytes())
        (folder / GATES).write_text(json.dumps(GATES_DOCUMENT))
        (folder / CARD).write_text("tiny\n")
        unsealed = Package(
            folder=folder,
            manifest=Manifest(kind="package", files={}, lineage={}),
            # A GPU is not at hand, and the golden texts are their own canonical forms.
            config=replace(config, runtime="onnxruntime", canonicalizer=None),
            cost=GRID,
        )
        engine = Engine(unsealed)
        texts = ["the soup was good", "the staff was very bad and cold"]
        pairs = ["the soup was warm"] * 2 if config.text_pair else [None] * 2
        logits = engine.logits(texts, pairs) + golden_shift
        if exam_rows:
            answered = engine.logits(drawn(exam_rows, seed=0))
            (folder / EXAM_MIX).write_bytes(exam_mix(answered, unsealed).to_bytes())
        lines = [
            GoldenAnswer(text=text, text_pair=pair, logits=tuple(map(float, row))).to_line()
            for text, pair, row in zip(texts, pairs, logits, strict=True)
        ]
        (folder / GOLDEN).write_text("\n".join(lines) + "\n")
    return open_package(target)


@pytest.fixture
def make_package(tmp_path_factory: pytest.TempPathFactory) -> MakePackage:
    """Build a sealed tiny package, and open it."""

    def make(  # noqa: PLR0913 - every one has a default that is right
        *,
        name: str = "tiny",
        labels: tuple[str, ...] = LABELS,
        task: Task = "single_label",
        text_pair: bool = False,
        batch_invariant: bool = True,
        max_length: int = 32,
        golden_shift: float = 0.0,
        exam_rows: int = 200,
        runtime: Runtime = "onnxruntime",
        canonicalizer: str | None = None,
        cased: bool = False,
        **graph: Any,
    ) -> Package:
        config = replace(
            tiny_config(),
            name=name,
            labels=labels,
            task=task,
            text_pair=text_pair,
            batch_invariant=batch_invariant,
            max_length=max_length,
            runtime=runtime,
            canonicalizer=canonicalizer,
        )
        target = tmp_path_factory.mktemp("package") / "tiny"
        return build_package(
            target,
            config,
            golden_shift=golden_shift,
            exam_rows=exam_rows,
            cased=cased,
            **graph,
        )

    return make


@pytest.fixture(scope="session")
def build() -> Callable[[Path], Package]:
    """Seal the tiny default package at a path: for fixtures that outlive a test."""
    return lambda target: build_package(target, tiny_config())


@pytest.fixture(scope="session")
def draw() -> Callable[[int, int], list[str]]:
    """`draw(count, seed)`: texts of the kind that the tiny package's exam has."""
    return drawn


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    """The tiny package's tokenizer."""
    return tiny_tokenizer()


@pytest.fixture
def package(make_package: MakePackage) -> Package:
    """Single label, batch-invariant."""
    return make_package()


def replica(
    package: Package, *, beside: Package | None = None, **limits: Any
) -> tuple[Core, Endpoint]:
    """What a replica of *package* holds. beside: a candidate that shadows all of its requests."""
    settings = ServeSettings(package="p", **limits)
    core = Core(package, Lanes(count=1, threads=1), settings)
    gate = Gate(KeyRing(Path(settings.keys)), Meter(settings.redis_url)) if settings.keys else None
    endpoint = build_endpoint(core, settings, gate=gate)
    if beside:
        candidate = PinnedShare(package=str(beside.folder), digest=beside.digest, share=1.0)
        endpoint.here.beside.arrange(candidate)
    return core, endpoint


@contextmanager
def listen(package: Package, **limits: Any) -> Iterator[str]:
    """The URL of a replica's ASGI app on a real socket, without Ray."""
    _, endpoint = replica(package, **limits)
    config = uvicorn.Config(endpoint, port=0, http=OneWrite, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with Client(url) as client:
            client.wait_ready(timeout_s=30)
        yield url
    finally:
        server.should_exit = True
        thread.join()
        # Not here: a browser's test has a loop of its own on this thread.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, endpoint.close()).result()


@contextmanager
def listen_grpc(package: Package, **limits: Any) -> Iterator[str]:
    """The address of a replica's calls on a real socket, without Ray."""
    ready: Future[tuple[int, Callable[[], object]]] = Future()

    async def run() -> None:
        core, endpoint = replica(package, **limits)
        server, stop = grpc.aio.server(), asyncio.Event()
        nobody = SimpleNamespace(**dict.fromkeys(CALLS))
        server.add_generic_rpc_handlers((Straight(nobody, endpoint=lambda: endpoint),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop = asyncio.get_running_loop()
        ready.set_result((port, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        await server.stop(0)
        await core.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    port, stop = ready.result(30)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stop()
        thread.join()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 of all lengths, which every door must answer alike; some characters are not in a word."""
    draws = random.Random(0)
    words = [
        *["good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was", "and"],
        "ünïcode",
        "✓",
        "好",
    ]
    return [" ".join(draws.choices(words, k=draws.randint(1, 40))) for _ in range(200)]


@pytest.fixture(name="replica")
def replica_fixture() -> Callable[..., tuple[Core, Endpoint]]:
    """`replica(package, ...limits)`: what a replica holds."""
    return replica


@pytest.fixture(scope="session")
def listening_grpc() -> Callable[..., AbstractContextManager[str]]:
    """`listening_grpc(package, ...limits)`: an address as `listen_grpc` makes it."""
    return listen_grpc


@pytest.fixture
def page(
    package: Package, listening: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> str:
    """`/metrics` of a server with every option that adds to it, after a refusal and many answers."""
    options = {
        "redis_url": "redis://127.0.0.1:9/0",
        "otlp_endpoint": "http://127.0.0.1:9",
        "request_log": tmp_path / "requests.jsonl",
        "beside": package,
    }
    with (
        listening(package, **options) as url,
        httpx.Client(base_url=url) as client,
    ):
        client.post("/predict", json={"texts": drawn(300, seed=3)})
        client.post("/predict", json={"text": ""})
        return client.get("/metrics").text


@pytest.fixture
def listening() -> Callable[..., AbstractContextManager[str]]:
    """`listening(package, ...limits)`: a server as `listen` makes it."""
    return listen


class Redis:
    """A real server on a port of its own."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        """As settings name it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Until it answers."""
        words = [str(REDIS), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(words, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while True:
            try:
                self.client().ping()
            except redis.ConnectionError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            else:
                return

    def client(self) -> redis.Redis:
        """To look behind the scenes."""
        return redis.Redis(port=self.port)

    def stop(self, *, kill: bool = False) -> None:
        """And wait until it is gone; *kill*: it has no time for a last word."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Redis]]:
    """Start one more real Redis, empty; all are stopped at the end."""
    running: list[Redis] = []

    def start() -> Redis:
        if REDIS is None:
            pytest.skip("no redis-server on this machine")
        running.append(Redis(tmp_path_factory.mktemp("redis")))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def redis_server(start_redis: Callable[[], Redis]) -> Iterator[Redis]:
    """A real Redis of the test's own."""
    running = start_redis()
    yield running
    running.stop()


HEAD = b"POST /predict HTTP/1.1\r\nhost: h\r\n"


def body(content: bytes, *more: bytes) -> bytes:
    """A whole request."""
    head = b"".join(line + b"\r\n" for line in more)
    return HEAD + head + b"content-length: %d\r\n\r\n" % len(content) + content


def chunked(*chunks: bytes) -> bytes:
    """A request whose body comes as these bytes."""
    return HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks)


GOOD = b'{"text": "good"}'
BAD: dict[str, bytes] = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00" * 20,
    "no line": b"\r\n\r\n\r\n",
    "half a line": b"POST /pre",
    "no version": b"GET /predict\r\n\r\n",
    "another version": b"POST /predict HTTP/9.9\r\n\r\n",
    "broken chunk": chunked(b"zz\r\n", GOOD),
    "negative chunk": chunked(b"-5\r\n", GOOD),
    "chunk too short": chunked(b"400\r\n", GOOD),
    "huge chunk": chunked(b"fffffffffffffffff\r\n", GOOD),
    "huge header": HEAD + b"x: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": HEAD + b"x: y\r\n" * 5_000 + b"\r\n",
    "no colon": HEAD + b"colonless\r\n\r\n",
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": HEAD + b"content-length: ten\r\n\r\n" + GOOD,
    "negative length": HEAD + b"content-length: -1\r\n\r\n" + GOOD,
    "less than it said": HEAD + b"content-length: 1000\r\n\r\n" + GOOD,
    "bad UTF-8": body(b'{"text": "\xff\xfe\xfd"}'),
    "half a surrogate": body(b'{"text": "\\ud800"}'),
    "NaN": body(b'{"text": "a", "threshold": NaN}'),
    "infinity": body(b'{"text": "a", "deadline_ms": 1e999}'),
    "deep JSON": body(b"[" * 100_000),
    "deep object": body(b'{"window":' * 10_000),
    "deep in inputs": body(b'{"inputs": ' + b"[" * 50_000 + b"}"),
    "nul in a text": body(b'{"text": "a\x00b"}'),
    "empty": body(b""),
    "wrong everything": body(b'{"text": {"text": []}, "top_k": "one"}'),
    "a text too long": body(b'{"text": "' + b"a" * 200_000 + b'"}'),
    "too many texts": body(json.dumps({"texts": ["a"] * 2000}).encode()),
    "odd lines": body(b"\n{\n\xff\n[]\n", b"content-type: application/x-ndjson"),
    "raw tensors beyond": body(GOOD, b"inference-header-content-length: 99999999"),
    "path of bytes": b"GET /\xff\xfe%00%zz/../../etc/passwd HTTP/1.1\r\nhost: h\r\n\r\n",
    "another method": b"BREW /predict HTTP/1.1\r\nhost: h\r\n\r\n",
    "upgrade": b"GET /predict HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "pipelined": body(GOOD) * 20,
    "good, then bad": body(GOOD) + b"\x00\x00\x00",
}


def send(address: tuple[str, int], content: bytes, *, early: bool) -> bytes:
    """What comes back before the server or we close; *early*: we do, at once."""
    got = b""
    with suppress(OSError), socket.create_connection(address, timeout=2) as line:
        line.sendall(content)
        if early:
            return got
        line.shutdown(socket.SHUT_WR)
        while piece := line.recv(65_536):
            got += piece
    return got


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`bad_request`: each of them, one after the other."""
    if "bad_request" in metafunc.fixturenames:
        metafunc.parametrize("bad_request", BAD.values(), ids=BAD.keys())


@pytest.fixture(scope="session")
def bad_requests() -> dict[str, bytes]:
    """What no server wants to see, by name."""
    return BAD


@pytest.fixture(scope="session")
def send_raw() -> Callable[..., bytes]:
    """`send`."""
    return send


class Collector(ThreadingHTTPServer):
    """Takes spans as any OpenTelemetry collector does, OTLP over HTTP; answers with *status*."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.status = 200
        self.came = threading.Event()
        self.taken: list[ResourceSpans] = []

    @property
    def spans(self) -> list[Span]:
        """All that came and were taken."""
        return [s for r in self.taken for scoped in r.scope_spans for s in scoped.spans]

    def await_request(self, trace_id: str) -> Span:
        """The span of the request that is part of this trace, once it came."""
        while True:
            self.came.clear()
            for span in self.spans:
                if span.trace_id.hex() == trace_id and span.kind == Span.SPAN_KIND_SERVER:
                    return span
            assert self.came.wait(60), f"nothing of trace {trace_id} came"


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """One export."""
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.status == 200:
            self.server.taken += ExportTraceServiceRequest.FromString(body).resource_spans
        self.send_response(self.server.status)
        self.end_headers()
        self.server.came.set()

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def make_collector() -> Iterator[Callable[[], Collector]]:
    """Start a collector of traces; it ends with the module."""
    started: list[Collector] = []

    def make() -> Collector:
        started.append(Collector())
        threading.Thread(target=started[-1].serve_forever, args=(0.05,), daemon=True).start()
        return started[-1]

    yield make
    for collector in started:
        collector.shutdown()
        collector.server_close()


@pytest.fixture
def collector(make_collector: Callable[[], Collector]) -> Collector:
    """Where traces go."""
    return make_collector()
