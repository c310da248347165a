"""Laws of the running server: real Ray, real HAProxy, real sockets, and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Self

import grpc
import httpx
import msgspec
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from playwright.sync_api import Route, sync_playwright

from benchmarks.roles import OTHER, roles_of
from serving.client import Client, RemoteError
from serving.deploy_file import grpc_options
from serving.engine import Engine
from serving.environment import HAPROXY_PORTS, free_ports
from serving.errors import PortInUse
from serving.grpc_door import wait_ready
from serving.options import DeployOptions, ServeOptions, ShadowOptions, StartShadowOptions
from serving.own_ray import ray_folder
from serving.package import Package
from serving.protocols import open_inference_pb2 as pb
from serving.protocols.calls import SERVICE
from serving.protocols.rendering import Shown, document
from serving.rollout.deploying import deploy
from serving.server import refuse_taken_port, serve
from serving.shadow import commands as shadow_commands
from serving.work import Answer

ROOT = Path(__file__).parent.parent.parent
START_S, STOP_S = 240.0, 90.0
HEAD_S = 4
REDIS_BUDGET_MS = 1000.0  # on a machine as busy as this, 5 ms pass without any Redis
CHROMIUM = shutil.which("chromium")
WORDS = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was", "and")
TEXTS = ["good", "the soup was very bad and cold", "not warm " * 40, "staff"]
Build = Callable[[Path], Package]
Listening = Callable[..., AbstractContextManager[str]]


def free_port() -> int:
    """A port nobody listens at."""
    (port,) = free_ports(1)
    return port


def environment(home: Path) -> dict[str, str]:
    """Of a user with a home of their own and nothing of Ray's set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MINIML_"))}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


class Server:
    """A server in a process group of its own, and every process that came of it."""

    def __init__(self, command: list[str], url: str, home: Path, **extra: str) -> None:
        self.url = url
        self.grpc = ""  # the address, where it has one
        self.home = home
        self.log = home / f"{len(list(home.iterdir()))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(home) | extra,
                stderr=log,
                stdout=log,
                start_new_session=True,
                cwd=home,
            )
        self._family: set[psutil.Process] = set()

    def wait_ready(self) -> None:
        """Until a request is answered; fails with the log when the process ends before."""
        with Client(self.url) as client:
            try:
                client.wait_ready(timeout_s=START_S, alive=lambda: self.process.poll() is None)
            except RemoteError:
                pytest.fail(self.log.read_text(errors="replace")[-3000:])
        self._meet()

    def family(self) -> set[psutil.Process]:
        """Every process that came of it, was seen and runs now."""
        self._meet()
        return {process for process in self._family if process.is_running()}

    def stop(self, number: signal.Signals, *, group: bool = False) -> int:
        """Signal it, or its whole group, and return the exit code."""
        if self.process.poll() is None:
            self._meet()
            (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(STOP_S)

    def _meet(self) -> None:
        """Remember those that run now: HAProxy begins anew whenever a replica comes or goes."""
        if self.process.poll() is None:
            self._family |= set(psutil.Process(self.process.pid).children(recursive=True))

    def left(self) -> list[str]:
        """Names of processes of the server that still run; ended at once, so that tests stay apart."""
        _, alive = psutil.wait_procs(self._family, timeout=5)
        running = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        names = [process.name() for process in running]
        for process in running:
            process.kill()
        return names


def miniml_serve(
    package: Package,
    port: int,
    home: Path,
    *,
    grpc_port: int = 0,
    redis_url: str = "",
    **extra: str,
) -> Server:
    """`miniml serve` in a process of its own."""
    code = (
        "import sys, logging; logging.basicConfig(level=logging.INFO);"
        "from pathlib import Path;"
        "from serving.options import ServeOptions; from serving.server import serve;"
        "port, grpc_port = map(int, sys.argv[2:4]); redis_url = sys.argv[4] or None;"
        "serve(ServeOptions(package=sys.argv[1], port=port, grpc_port=grpc_port or None,"
        " redis_url=redis_url, request_log=Path('-'), log_texts=True))"
    )
    command = [sys.executable, "-c", code, str(package.folder), str(port), str(grpc_port)]
    server = Server([*command, redis_url], f"http://127.0.0.1:{port}", home, **extra)
    server.grpc = f"127.0.0.1:{grpc_port}"
    return server


def serve_run(package: Package, port: int, home: Path) -> Server:
    """Plain `serve run` with Ray's default Python proxy, on a port of its own."""
    config = home / "serve.yaml"
    application = {
        "name": "miniml",
        "import_path": "serving.app:build",
        "args": {"package": str(package.folder), "lanes": "1"},
    }
    http = {"host": "127.0.0.1", "port": port}
    (grpc_port,) = free_ports(1)
    rpcs = grpc_options(ServeOptions(grpc_port=grpc_port))
    document = {"http_options": http, "grpc_options": rpcs, "applications": [application]}
    config.write_text(json.dumps(document))
    command = [str(Path(sys.executable).parent / "serve"), "run", str(config)]
    server = Server(command, f"http://127.0.0.1:{port}", home, RAY_AUTH_MODE="disabled")
    server.grpc = f"127.0.0.1:{grpc_port}"
    return server


def written_config(
    package: Package, port: int, home: Path, redis_url: str, also: Package, **extra: str
) -> Server:
    """`serve run` of two models on the file of `miniml serve --write-config`, started as the file's head says."""
    config = home / "serve.yaml"
    (grpc_port,) = free_ports(1)
    options = ServeOptions(
        package=str(package.folder),
        port=port,
        grpc_port=grpc_port,
        redis_url=redis_url,
        also=(str(also.folder),),
    )
    serve(replace(options, write_config=config))
    (environment_line,) = re.findall(r"^# (eval .*)$", config.read_text(), re.MULTILINE)
    run = f"exec {Path(sys.executable).parent / 'serve'} run {config}"
    ports = {name: str(free_port()) for name in HAPROXY_PORTS}
    command = ["/bin/sh", "-c", f"{environment_line}\n{run}"]
    server = Server(command, f"http://127.0.0.1:{port}", home, **ports, **extra)
    server.grpc = f"127.0.0.1:{grpc_port}"
    return server


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, build: Build) -> Package:
    """One tiny package for all servers of this file."""
    return build(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture(scope="module")
def redis_server(start_redis: Callable[[], Any]) -> Any:
    """One real Redis for all servers of this file."""
    return start_redis()


@pytest.fixture(scope="module")
def collector(make_collector: Callable[[], Any]) -> Any:
    """Where the servers of this file send their traces."""
    return make_collector()


@pytest.fixture(scope="module", params=["miniml serve, HAProxy", "serve run, Python proxy"])
def server(
    request: pytest.FixtureRequest,
    package: Package,
    redis_server: Any,
    tmp_path_factory: pytest.TempPathFactory,
    collector: Any,
) -> Iterator[Server]:
    """A running server, one mode after the other; the last law is on how it ends.

    `miniml serve` has a Redis, and runs in an unkind environment: a TMPDIR too deep for sockets, no home to write
    to, and a RAY_ADDRESS that is none of its business. It traces, by the standard environment.
    """
    home = tmp_path_factory.mktemp("home")
    if request.param.startswith("miniml"):
        deep = home / ("d" * 90)
        deep.mkdir()
        unkind = {"TMPDIR": str(deep), "HOME": "/proc/nonexistent", "RAY_ADDRESS": "127.0.0.1:1"}
        unkind["MINIML_REDIS_BUDGET_MS"] = str(REDIS_BUDGET_MS)
        unkind["MINIML_BODY_TIMEOUT_S"] = str(HEAD_S)
        unkind |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        port, grpc_port = free_ports(2)
        running = miniml_serve(
            package, port, home, grpc_port=grpc_port, redis_url=redis_server.url, **unkind
        )
    else:
        running = serve_run(package, free_port(), home)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop(signal.SIGINT)
        running.left()


def expected(engine: Engine, texts: list[str]) -> list[dict[str, Any]]:
    """What the engine says of each text alone, as it goes over the wire."""
    answers = (Answer(logits=row, queue_ms=0.0, infer_ms=0.0) for row in engine.logits(texts))
    return [msgspec.to_builtins(document(answer, engine.package, Shown())) for answer in answers]


def test_concurrent_answers_are_the_engines_alone(server: Server, package: Package) -> None:
    """32 mixed calls at once get, in order and bit for bit, what each text gets alone."""
    calls = [(TEXTS * 4)[n % 5 : n % 5 + 1 + n % 9] for n in range(32)]

    def call(texts: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        with Client(server.url) as client:
            return client.predict_many(texts), client.predict(texts[0])

    with ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(call, calls))

    engine = Engine(package)
    for texts, (many, one) in zip(calls, answers, strict=True):
        assert many == expected(engine, texts)
        assert one == many[0]


def infer(
    server: Server, texts: list[str], *, model: str = "tiny", **metadata: str
) -> tuple[Any, dict[str, str]]:
    """The answer over gRPC and what came behind it. Raises `grpc.RpcError`."""
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    with grpc.insecure_channel(server.grpc) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        given = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        answer, state = ask.with_call(message, metadata=given, timeout=60)
    return answer, dict(state.trailing_metadata())


def test_grpc_gives_the_engines_answers(server: Server, package: Package) -> None:
    """32 calls at once, in order and bit for bit, with the package's digest behind each."""
    wait_ready(server.grpc, timeout_s=START_S, alive=lambda: True)
    calls = [(TEXTS * 4)[n % 5 : n % 5 + 1 + n % 9] for n in range(32)]
    with ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(lambda texts: infer(server, texts), calls))

    engine = Engine(package)
    for texts, (answer, told) in zip(calls, answers, strict=True):
        outputs = {output.name: output.contents for output in answer.outputs}
        assert list(outputs["logits"].fp32_contents) == engine.logits(texts).ravel().tolist()
        assert [one.decode() for one in outputs["label"].bytes_contents] == [
            one["label"] for one in expected(engine, texts)
        ]
        assert told["x-package-digest"] == package.digest


def test_grpc_refusals_pass_the_proxy(server: Server) -> None:
    """Code, sentence and what stands beside them; Ray writes no traceback of a caller's mistake."""
    cases: list[tuple[list[str], dict[str, str], str]] = [
        ([" "], {}, "INVALID_ARGUMENT"),
        (["good"] * 1025, {}, "INVALID_ARGUMENT"),
        (["a" * 5_000_000], {}, "INVALID_ARGUMENT"),
        (["good"], {"x_deadline_ms": "1e-6", "cache_control": "no-cache"}, "DEADLINE_EXCEEDED"),
    ]
    for texts, metadata, code in cases:
        with pytest.raises(grpc.RpcError) as caught:
            infer(server, texts, x_request_id="mine", **metadata)
        refusal: Any = caught.value
        told = dict(refusal.trailing_metadata())

        assert (refusal.code().name, told["x-request-id"]) == (code, "mine")
        assert refusal.details()
        assert told["x-error-type"]
    assert "Traceback" not in server.log.read_text(errors="replace")


def test_grpc_tells_what_it_serves(server: Server) -> None:
    """By reflection, as grpcurl asks: the service and its calls."""
    with grpc.insecure_channel(server.grpc) as channel:
        told = ProtoReflectionDescriptorDatabase(channel)
        pool: Any = DescriptorPool(told)

        assert SERVICE in told.get_services()
        assert len(pool.FindServiceByName(SERVICE).methods) == 6


def test_errors_pass_the_proxy_unchanged(server: Server) -> None:
    """Status and body of a refusal reach the caller as the replica wrote them."""
    post = "POST /predict"
    cases = [
        (post, b"{", 400),
        (post, b'{"texts": []}', 422),
        (post, b'{"text": "%s"}' % (b"a" * 1_000_000), 413),
        (post, b'{"text": "%s"}' % (b"a" * 20_000_000), 413),
        ("GET /predict", b"", 405),
        ("GET /nowhere", b"", 404),
    ]
    for asked, body, status in cases:
        method, path = asked.split()
        response = httpx.request(method, server.url + path, content=body, timeout=60)

        assert response.status_code == status
        assert response.json()["error"]["message"]


def test_ready_and_alive(server: Server, package: Package) -> None:
    """Both probes say yes, and every answer names the package."""
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    response = httpx.post(f"{server.url}/predict", json={"text": "good"})
    assert response.headers["x-package-digest"] == package.digest


def test_replicas_are_asked_together(server: Server) -> None:
    """What they know and did is added up and cleared by Ray, whichever of them was asked."""
    for _ in range(2):
        assert httpx.post(f"{server.url}/predict", json={"text": "good"}).status_code == 200
    known = httpx.get(f"{server.url}/cache").json()
    cleared = httpx.delete(f"{server.url}/cache").json()["cleared"]
    metrics = httpx.get(f"{server.url}/metrics").text

    assert known["cache_entries"] >= 1
    assert cleared >= known["cache_entries"]  # and those in Redis, where there is one
    assert httpx.get(f"{server.url}/cache").json()["cache_entries"] == 0
    assert re.search(r'miniml_requests_total\{door="predict",replica="\w+",status="200"\}', metrics)


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_callers_do_not_steer_ray(server: Server) -> None:
    """A header by which Ray would give a request no time changes nothing; ids come back once."""
    headers = {"x-request-timeout-seconds": "0.000001", "x-request-id": "mine"}
    for method, path in (("POST", "/predict"), ("GET", "/readyz"), ("GET", "/info")):
        response = httpx.request(method, server.url + path, json={"text": "good"}, headers=headers)

        assert response.status_code == 200
        assert response.headers.get_list("x-request-id") == ["mine"]


class Load:
    """Four callers that ask *url* for texts of all kinds, and note every answer that is not right.

    Right is what the package says whose digest stands beside the answer.
    """

    def __init__(self, url: str, *packages: Package) -> None:
        self._url = url
        self._engines = {package.digest: Engine(package) for package in packages}
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(4)]
        self.answered = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join()

    def wait_for_more(self, count: int) -> None:
        """So many answers."""
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted)

    def _ask(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            while not self._over.is_set():
                texts = [" ".join(chance.choices(WORDS, k=4)) for _ in range(8)]
                try:
                    response = client.post("/predict", json={"texts": texts}).raise_for_status()
                    engine = self._engines[response.headers["x-package-digest"]]
                    right = response.json() == expected(engine, texts)
                    self.wrong += [] if right else [response.text]
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                self.answered += 1


def wait_until(true: Callable[[], bool]) -> None:
    """Look again and again, and give up after a long time."""
    deadline_s = time.monotonic() + START_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_redis_may_die_under_load(
    server: Server, package: Package, redis_server: Any, listening: Listening
) -> None:
    """Killed among requests none of them fails; started again on its port it is used again."""
    texts = (" ".join(words) for words in product(WORDS, repeat=5))  # none is another's equal

    def hits(writer: str) -> float:
        """Of the server in Redis, once *writer*, which shares it, has answered new texts."""
        body = {"texts": [next(texts) for _ in range(8)]}
        for url in (writer, server.url):
            httpx.post(f"{url}/predict", json=body).raise_for_status()
        return float(httpx.get(f"{server.url}/cache").json()["cache_redis_hits"])

    shared = {"redis_url": redis_server.url, "redis_budget_ms": REDIS_BUDGET_MS}
    with listening(package, **shared) as writer, Load(server.url, package) as load:
        wait_until(lambda: hits(writer) > 0)
        load.wait_for_more(50)
        redis_server.stop(kill=True)
        load.wait_for_more(200)
        redis_server.start()
        before = hits(writer)
        wait_until(lambda: hits(writer) > before)
        load.wait_for_more(50)

    assert load.wrong == []
    assert httpx.get(f"{server.url}/cache").json()["cache_redis_failures"] > 0


@pytest.fixture
def other(make_package: Callable[..., Package]) -> Package:
    """Answers the same texts differently."""
    return make_package(seed=7)


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_a_package_is_swapped_under_load(server: Server, package: Package, other: Package) -> None:
    """There and back among requests none fails, each answer is its digest's; a new replica has the new."""

    def put(wanted: Package) -> None:
        options = DeployOptions(package=str(wanted.folder), url=server.url, watch="0")
        assert deploy(options).digest == wanted.digest

    def answers_with(wanted: Package) -> bool:
        response = httpx.post(f"{server.url}/predict", json={"text": "good"}, timeout=60)
        return bool(response.headers.get("x-package-digest") == wanted.digest)

    with Load(server.url, package, other) as load:
        load.wait_for_more(50)
        put(other)
        assert answers_with(other)
        load.wait_for_more(50)
    (replica,) = [each for each in server.family() if "ServeReplica" in each.name()]
    replica.kill()
    psutil.wait_procs([replica], timeout=STOP_S)
    wait_until(lambda: answers_with(other))
    with Load(server.url, package, other) as again:
        again.wait_for_more(50)
        put(package)
        again.wait_for_more(50)

    assert answers_with(package)
    assert load.wrong == again.wrong == []


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_a_candidate_is_compared_under_load(
    server: Server, package: Package, other: Package
) -> None:
    """Every answer is the package's own, and the report is of what both say; its process ends with it."""

    def workers() -> list[psutil.Process]:
        found = []
        for each in server.family():
            with suppress(psutil.NoSuchProcess):  # it has just ended, and may not be buried yet
                if "serving.shadow.worker" in each.cmdline():
                    found.append(each)
        return found

    shadow = StartShadowOptions(package=str(other.folder), share="50%", url=server.url)
    started = shadow_commands.start(shadow).report
    options = ShadowOptions(url=server.url)
    with Load(server.url, package, other) as load:
        load.wait_for_more(50)
        wait_until(lambda: shadow_commands.report(options).report.compared >= 100)
    assert len(workers()) == 1
    found = shadow_commands.report(options).report
    shadow_commands.stop(options)

    assert load.wrong == []
    assert (started.champion, started.candidate) == (package.digest, other.digest)
    assert found.replicas == {"comparing": 1}
    assert 0 < found.agreed.agreeing < found.agreed.texts
    wait_until(lambda: not workers())
    with pytest.raises(RemoteError, match="No candidate"):
        shadow_commands.report(options)


@pytest.mark.parametrize("server", ["serve run, Python proxy"], indirect=True)
def test_without_keys_only_miniml_serve_is_changed(server: Server, other: Package) -> None:
    """Ray's `serve run` listens where nobody can tell who may; what answers stays."""
    change = {"package": str(other.folder), "digest": other.digest}
    response = httpx.put(f"{server.url}/rollout", json=change)

    assert response.status_code == 403
    assert "--keys" in response.json()["error"]["hint"]
    assert httpx.get(f"{server.url}/rollout").json()["wanted"]["revision"] == 0


def answers_to(url: str, content: bytes) -> bytes:
    """All that comes back before it falls silent; unlike a closed line, an open one is answered."""
    got = b""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with suppress(OSError), socket.create_connection(address, timeout=1) as line:
        line.sendall(content)
        while piece := line.recv(65_536):
            got += piece
    return got


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_bad_bytes_hurt_nobody_behind_haproxy(
    server: Server,
    package: Package,
    bad_requests: dict[str, bytes],
    send_raw: Callable[..., bytes],
) -> None:
    """Never a 5xx: what is no HTTP gets HAProxy's 400, the rest ours; others are answered all the while.

    HAProxy's own errors are HTML; of a 502, 503 or 504 Ray makes it say 500.
    """
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    chance, names = random.Random(0), sorted(bad_requests)
    with Load(server.url, package) as load:
        with ThreadPoolExecutor(8) as callers:
            given = list(callers.map(partial(answers_to, server.url), bad_requests.values()))
        for _ in range(500):
            content = bad_requests[chance.choice(names)]
            send_raw(address, content[: chance.randint(1, len(content))], early=True)
        load.wait_for_more(10)

    heads = [
        (int(code), b"<html>" in answers)
        for answers in given
        for code in re.findall(rb"^HTTP/1\.[01] (\d{3})", answers, re.MULTILINE)
    ]
    assert {code for code, _ in heads} == {200, 400, 405, 413, 422}
    assert {code for code, by_haproxy in heads if by_haproxy} <= {200, 400}  # 200: before a bad one
    assert load.wrong == []
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_haproxy_has_no_door_open_but_the_one(server: Server) -> None:
    """It listens on this machine alone, its pages too, and nobody else may speak to its socket."""
    addresses, configs = set(), set()
    for process in server.family():
        with suppress(
            psutil.NoSuchProcess
        ):  # the one before ends when there is a new configuration
            words = process.cmdline()
            if "haproxy" in process.name() and "-f" in words:
                configs.add(Path(words[words.index("-f") + 1]))
                addresses |= {
                    connection.laddr.ip
                    for connection in process.net_connections("tcp")
                    if connection.status == psutil.CONN_LISTEN
                }
    (config,) = configs
    modes = [path.stat().st_mode & 0o777 for path in config.parent.glob("*.sock")]

    assert addresses == {"127.0.0.1"}
    assert " local0 " not in config.read_text()  # nor does it tell a syslog who asks what
    assert modes
    assert not any(mode & 0o077 for mode in modes)


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_what_listens_stands_in_the_docs(
    server: Server, undocumented: Callable[..., tuple[Any, Any]]
) -> None:
    """docs/security.md has a row for every port of every process, and no row too many."""
    assert undocumented(server.process.pid, grpc=True) == ({}, {})


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_nothing_runs_that_nobody_uses(server: Server) -> None:
    """Of Ray's processes those that one machine needs; what found out what is served has ended."""

    def settled() -> bool:  # workers have no name yet when they begin
        roles = {role for role, _ in roles_of(server.process.pid)}
        assert {"replica", "controller", "HAProxy", "GCS", "raylet"} <= roles
        return roles.isdisjoint({"log monitor", "dashboard", "monitor", OTHER})

    wait_until(settled)


# A call of each kind of process: what Ray itself asks there.
ASKED_OF_RAY = (
    ("GCS", "ray.rpc.NodeInfoGcsService/GetAllNodeInfo"),
    ("GCS", "ray.rpc.InternalKVGcsService/InternalKVGet"),
    ("raylet", "ray.rpc.NodeManagerService/GetNodeStats"),
    ("raylet", "ray.rpc.ObjectManagerService/Pull"),
    ("dashboard agent", "ray.rpc.ReporterService/GetTraceback"),
    ("replica", "ray.serve.ASGIService/HandleRequest"),
    *(
        (role, "ray.rpc.CoreWorkerService/GetCoreWorkerStats")
        for role in ("miniml serve", "controller", "spare proxy", "HAProxy's manager", "replica")
    ),
)


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_who_has_no_token_is_refused_by_every_process_of_rays(
    server: Server, doors_of: Callable[[int], dict[tuple[str, str, int], str]]
) -> None:
    """At one port of each the call is known and refused, at none it is answered."""

    def code(port: int, method: str) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                channel.unary_unary(f"/{method}")(b"", timeout=30)
            except grpc.RpcError as error:
                refusal: Any = error
                return str(refusal.code().name)
            return "OK"

    doors = doors_of(server.process.pid)
    for role, method in ASKED_OF_RAY:
        codes = {code(port, method) for (whose, _, port) in doors if whose == role}
        assert "UNAUTHENTICATED" in codes, (role, method, codes)
        assert "OK" not in codes, (role, method)
    for role, _, port in doors:
        if role == "runtime env agent":
            assert (
                httpx.post(f"http://127.0.0.1:{port}/get_or_create_runtime_env").status_code == 401
            )


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_a_head_that_does_not_come_is_not_waited_for(server: Server) -> None:
    """Who sends half a request's head and then nothing is told so, and let go."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=HEAD_S * 10) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nhost: h\r\nx-slow: ")
        got = b""
        while piece := line.recv(65_536):
            got += piece

    assert got.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_a_request_is_logged_and_traced(server: Server, collector: Any) -> None:
    """Behind HAProxy: the line on standard output has the answer's id, the span the caller's trace."""
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    response = httpx.post(f"{server.url}/predict", json={"text": "very good"}, headers=headers)
    identity = response.headers["x-request-id"]
    deadline_s = time.monotonic() + STOP_S
    while identity not in server.log.read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    (line,) = [line for line in server.log.read_text().splitlines() if identity in line]
    logged = json.loads(line)
    span = collector.await_request(trace)

    assert (logged["text"], logged["trace_id"]) == (["very good"], trace)
    assert span.parent_span_id.hex() == parent


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_pages_work_in_a_browser(server: Server) -> None:
    """In a real browser the pages fill themselves, classify a text, and ask nobody else."""
    elsewhere: list[str] = []

    def only_here(route: Route) -> None:
        if route.request.url.startswith(server.url):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route("**/*", only_here)
        page.goto(f"{server.url}/docs")
        page.get_by_text("PredictAnswer").first.wait_for()
        page.get_by_role("link", name="Playground").click()
        page.get_by_role("heading", name="tiny: 3 labels").wait_for()
        page.get_by_label("One text a line").fill("the staff was good")
        page.get_by_role("button", name="Classify").click()
        page.get_by_role("heading", name="Answers").wait_for()
        page.get_by_role("article").get_by_text("positive").wait_for()
        browser.close()

    assert (elsewhere, errors) == ([], [])


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_the_written_config_is_the_same_app(
    server: Server,
    package: Package,
    make_package: Callable[..., Package],
    redis_server: Any,
    tmp_path: Path,
) -> None:
    """`serve run` on it answers as `miniml serve`, with the same /info, behind HAProxy too.

    Beside the first model it has another, which every way leads to that names it, in all replicas' numbers.
    Lanes are each one's own: where the first could not measure them, nothing was remembered.
    """
    same_home = str(server.home / ".miniml")
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # as the first is
    topics = make_package(name="topics", seed=5, labels=("food", "staff", "place", "price"))
    options = {"MINIML_HOME": same_home, **traced}
    running = written_config(package, free_port(), tmp_path, redis_server.url, topics, **options)
    try:
        running.wait_ready()
        ours, theirs = (httpx.get(f"{url}/info").json() for url in (server.url, running.url))
        with Client(running.url) as client:
            answers = client.predict_many(TEXTS)
        wait_ready(running.grpc, timeout_s=START_S, alive=lambda: True)
        infer(running, TEXTS)
        with Client(running.url, model="topics") as client:
            of_topics = client.predict_many(TEXTS)
        _, beside = infer(running, TEXTS, model="topics")
        about = httpx.get(f"{running.url}/v2/models/topics").json()
        unknown = httpx.get(f"{running.url}/v2/models/other")
        page = httpx.get(f"{running.url}/metrics").text
        processes = [process.name() for process in running.family()]
    finally:
        running.stop(signal.SIGINT)
        running.left()

    assert theirs.pop("now").keys() == ours.pop("now").keys()
    cores = [each["count"] * each["threads"] for each in (theirs.pop("lanes"), ours.pop("lanes"))]
    assert cores[0] == cores[1]
    models = [(model["name"], model["loaded"]) for model in theirs.pop("models")]
    assert models == [("tiny", True), ("topics", False)]
    assert theirs == ours
    assert of_topics == expected(Engine(topics), TEXTS)
    assert beside["x-package-digest"] == topics.digest
    assert (about["name"], about["versions"]) == ("topics", [topics.digest[:12]])
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "UnknownModel")
    assert re.search(r'miniml_model_loads_total{model="topics",replica="\w+"} 1.0', page)
    assert answers == expected(Engine(package), TEXTS)
    assert any("haproxy" in name for name in processes)


class OpenLines:
    """A stream of lines to *url* that is not over: a line sent, its answer read."""

    def __init__(self, url: str) -> None:
        head = b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        self._socket = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60)
        self._socket.sendall(b"POST /predict HTTP/1.1\r\nhost: h\r\n" + head)
        self.got = b""
        self._send(b"")
        while self.got.count(b'"label"') < 1:
            self.got += self._socket.recv(65_536)

    def finish(self) -> None:
        """One more line, and the end; all that comes back is read."""
        self._send(b"0\r\n\r\n")
        while not self.got.endswith(b"0\r\n\r\n") and (piece := self._socket.recv(65_536)):
            self.got += piece
        self._socket.close()

    def _send(self, more: bytes) -> None:
        line = b'{"text": "good"}\n'
        self._socket.sendall(b"%x\r\n%b\r\n%b" % (len(line), line, more))


@pytest.mark.parametrize("server", ["miniml serve, HAProxy"], indirect=True)
def test_what_was_accepted_is_answered_before_it_ends(server: Server) -> None:
    """After a SIGINT an open stream is answered to its end; who comes later is told to ask again."""
    wait_until(lambda: "Stop with Ctrl-C" in server.log.read_text())
    lines = OpenLines(server.url)
    server.process.send_signal(signal.SIGINT)
    with httpx.Client(base_url=server.url) as client:
        wait_until(lambda: client.get("/readyz").status_code == 503)
        late = client.post("/predict", json={"text": "good"})
    lines.finish()

    assert (late.status_code, late.json()["error"]["type"]) == (503, "NotReady")
    assert int(late.headers["retry-after"]) >= 1
    assert lines.got.count(b'"label"') == 2
    assert server.process.wait(STOP_S) == 0


def test_it_stops_and_leaves_nothing(server: Server) -> None:
    """One SIGINT ends it with success, all it started, and its hold on the port."""
    port = int(server.url.rpartition(":")[2])

    assert server.stop(signal.SIGINT) == 0
    assert server.left() == []
    refuse_taken_port("127.0.0.1", port)


def test_a_signal_to_all_leaves_nothing(package: Package, tmp_path: Path) -> None:
    """When a service manager signals every process at once, HAProxy does not survive either."""
    port = free_port()
    running = miniml_serve(package, port, tmp_path)
    running.wait_ready()
    running.stop(signal.SIGTERM, group=True)

    assert running.left() == []
    refuse_taken_port("127.0.0.1", port)


def test_a_signal_while_starting_is_obeyed(package: Package, tmp_path: Path) -> None:
    """Stopped before it is ready, it ends with success, says so, and leaves nothing."""
    running = miniml_serve(package, free_port(), tmp_path)
    deadline_s = time.monotonic() + START_S
    while not psutil.Process(running.process.pid).children():  # Ray has begun to start
        assert time.monotonic() < deadline_s
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it ended with {running.process.wait(0.1)} before it started Ray")
    running.stop(signal.SIGINT)

    assert "Stopped before it was ready" in running.log.read_text()
    assert running.left() == []


def test_a_taken_port_is_said_before_anything_starts(package: Package) -> None:
    """A port in use gives one sentence with the port in it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(PortInUse, match=f"Port {port} on 127.0.0.1"):
            serve(ServeOptions(package=str(package.folder), port=port))


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_cannot_be_is_one_sentence(port: int) -> None:
    """A number that is no port gives our error, not the socket library's."""
    with pytest.raises(PortInUse, match=f"no port {port}"):
        refuse_taken_port("127.0.0.1", port)


def test_a_deep_temporary_folder_gives_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's sockets go to a short folder when the default is too deep for the kernel."""
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert ray_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("d" * 60)))
    short = ray_folder()

    assert short is not None
    assert len(short) <= 35
