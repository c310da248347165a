"""Three nodes on this machine, as three machines would be: a head without replicas and two workers.

Each node is a raylet with processes, ports and a HAProxy of its own, in the environment of production
with Ray's tokens on. `make test-cluster` runs what is in this folder; `make test` does not.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry.artifact import staged
from serving.client import AsyncClient, RemoteError
from serving.conversation import Outcome
from serving.engine import Engine
from serving.package import MODEL, Package, open_package
from serving.settings import ServeSettings

ROOT = Path(__file__).parent.parent.parent.parent
APPLICATION = "miniml"
REPLICAS = 3
LONG_S = 240.0
BACK_S = 10.0  # the issue's own line: until then p99 is back
WORDS = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was", "and")
_TIMEOUT_S = 90.0
# The port of a replica that died is free for anybody, and for a while HAProxy still goes there: these
# tests have some that no other Ray on this machine gives away.
_REPLICA_PORTS = range(31_100, 32_600, 100)
_CALM_S = 5  # seconds in a row that are as before
_TAIL = 0.99
_MOMENT_S = 0.2
_NOISE_S = 0.5  # on shared cores a quiet second has such a p99, too
_REDIS_BUDGET_MS = 1000.0
_TOLD = pytest.StashKey[list[str]]()
# Of a loop that keeps a lane busy for each text: so the package is what limits three replicas, and not
# the client, which shares their cores.
_TURNS = 20_000


def wait_until(true: Callable[[], Any], *, within_s: float = LONG_S) -> Any:
    """What *true* gives once that is something; looks again and again, and gives up after long."""
    deadline_s = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One that Serve calls running."""

    name: str  # as Ray's actor
    identity: str  # as in /metrics and spans
    node: str
    process: psutil.Process


class Nodes:
    """A Ray cluster on this machine, and Serve on it. Every node answers at a port of its own."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        with log.open("wb") as errors:
            self._driver = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("driver.py"))],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._turn = threading.Lock()
        self._raylets: dict[str, int] = {}
        self.urls: dict[str, str] = {}  # each worker's, by its node

    def _do(self, order: str, **given: Any) -> Any:
        assert self._driver.stdin
        assert self._driver.stdout
        with self._turn:
            self._driver.stdin.write(json.dumps({"do": order, "with": given}) + "\n")
            self._driver.stdin.flush()
            answer = json.loads(self._driver.stdout.readline() or '{"failed": "no answer"}')
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["done"]

    def start(self) -> None:
        """Serve on the head."""
        made = self._do("start")
        self.head = str(made["node"])
        self.url = f"http://127.0.0.1:{made['port']}"

    def add_worker(self, **resources: Any) -> str:
        """A node with room for three replicas, and its id."""
        made = self._do("add_worker", **{"num_cpus": REPLICAS, **resources})
        self._raylets[made["node"]] = made["raylet"]
        self.urls[made["node"]] = f"http://127.0.0.1:{made['port']}"
        return str(made["node"])

    def kill_worker(self, node: str) -> None:
        """SIGKILL to all processes of it at once, as when a machine loses power."""
        raylet = psutil.Process(self._raylets.pop(node))
        del self.urls[node]
        for process in [raylet, *raylet.children(recursive=True), *self.haproxies(node)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._do("remove_worker", node=node)

    def deploy(self, settings: ServeSettings, **options: Any) -> None:
        """As `serve deploy` does with a file of `--write-config`; does not wait."""
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "serving.app:build",
            "args": settings.model_dump(mode="json", exclude_defaults=True),
            **({"deployments": [{"name": "Encoder", **options}]} if options else {}),
        }
        self._do("deploy", application=application)

    def kill_actor(self, name: str) -> None:
        """As `ray.kill`; Ray starts it again."""
        self._do("kill_actor", name=name)

    def details(self) -> dict[str, Any]:
        """What Serve says of itself; nothing while its controller is away."""
        with suppress(RuntimeError):
            return dict(self._do("details"))
        return {}

    def application(self) -> dict[str, Any]:
        """What it says of the application."""
        return dict(self.details().get("applications", {}).get(APPLICATION, {}))

    def told(self) -> str:
        """The same in words."""
        application = self.application()
        deployments = application.get("deployments", {}).values()
        return "\n".join([application.get("message", ""), *(d["message"] for d in deployments)])

    def replicas(self) -> list[Replica]:
        """Those that run and are routed to."""
        deployments = self.application().get("deployments", {}).values()
        running = []
        for each in [replica for d in deployments for replica in d["replicas"]]:
            with suppress(psutil.NoSuchProcess):
                if each["state"] == "RUNNING":
                    running.append(
                        Replica(
                            name=each["actor_name"],
                            identity=each["replica_id"],
                            node=each["node_id"],
                            process=psutil.Process(each["pid"]),
                        )
                    )
        return running

    def identities(self) -> set[str]:
        """Of the replicas that run; nobody's while the controller is away."""
        return {each.identity for each in self.replicas()}

    def answers(self, url: str) -> bool:
        """Whether a node is there and has a replica to ask."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
        return False

    def controller(self) -> psutil.Process:
        """The process of Serve's controller."""
        family = psutil.Process(self._driver.pid).children(recursive=True)
        (found,) = [
            p for p in family if p.name().startswith("ray::ServeCont")
        ]  # the kernel cuts it
        return found

    def haproxies(self, node: str) -> list[psutil.Process]:
        """HAProxy's processes of a node; a reload leaves the old one for a while."""
        return [process for process in psutil.process_iter() if _is_haproxy_of(process, node)]

    def wait_ready(self, replicas: int = REPLICAS) -> None:
        """Until so many replicas run, and every node answers."""

        def ready() -> bool:
            # For a moment Serve still tells of those whose node has died.
            nodes = [each.node for each in self.replicas()]
            return len(nodes) == replicas and set(nodes) <= self.urls.keys()

        try:
            wait_until(ready)
        except AssertionError:
            pytest.fail(f"no {replicas} replicas: {self.told()}")
        for url in (self.url, *(self.urls[each.node] for each in self.replicas())):
            wait_until(partial(self.answers, url))

    def stop(self) -> None:
        """Serve, the nodes, and whatever else is left of them."""
        with suppress(RuntimeError):
            self._do("stop")
        assert self._driver.stdin
        self._driver.stdin.close()
        try:
            self._driver.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._driver.pid, signal.SIGKILL)


def _is_haproxy_of(process: psutil.Process, node: str) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()
        return bool(words) and "haproxy" in words[0] and any(node in word for word in words)
    return False


@dataclass(slots=True, kw_only=True)
class Asked:
    """One question: when it was due, how each try of it ended, and when the last did.

    Times are of `time.monotonic`. right: as the engine answers; None while nobody has answered.
    """

    due_s: float
    tries: list[str] = field(default_factory=list)
    done_s: float = 0.0
    right: bool | None = None

    @property
    def took_s(self) -> float:
        """From when it was due, whenever it was sent."""
        return self.done_s - self.due_s


class Watched(AsyncClient):
    """Our client, which tells how each try of a text ended."""

    def __init__(self, url: str, tried: Callable[[str, str], None]) -> None:
        super().__init__(url, concurrency=1000, timeout_s=_TIMEOUT_S)
        self._tried = tried

    async def _send(self, body: dict[str, Any]) -> Outcome:
        outcome = await super()._send(body)
        status = getattr(outcome, "status_code", type(outcome).__name__)
        self._tried(body["text"], str(status))
        return outcome


class OpenLoop:
    """*per_s* questions a second to *url*, whatever becomes of them; each has another answer."""

    def __init__(
        self, url: str, questions: Iterator[tuple[str, list[float]]], per_s: float
    ) -> None:
        self._url, self._questions, self._per_s = url, questions, per_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.asked: dict[str, Asked] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(_CALM_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Until so many seconds' questions more were due."""
        wanted = len(self.asked) + seconds * self._per_s
        wait_until(lambda: len(self.asked) >= wanted)

    async def _run(self) -> None:
        chance = random.Random(0)
        due_s = time.monotonic()
        async with (
            Watched(self._url, lambda text, how: self.asked[text].tries.append(how)) as client,
            asyncio.TaskGroup() as group,
        ):
            while not self._over.is_set():
                due_s += chance.expovariate(self._per_s)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                text, logits = next(self._questions)
                self.asked[text] = asked = Asked(due_s=due_s)
                group.create_task(self._ask(client, text, logits, asked))

    async def _ask(self, client: AsyncClient, text: str, logits: list[float], asked: Asked) -> None:
        try:
            answer = await client.predict(text, logits=True)
            asked.right = list(answer["logits"].values()) == logits
        except RemoteError:
            pass
        finally:
            asked.done_s = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a fault did. hit: questions whose first try failed. lost: that had no answer in the end.

    in_flight: not answered yet when it came, or a moment before or after. wrong: with what is
    another text's. slowest_s: of those answered. back_s: from the fault until the 99th percentile was as
    before; None: not while it was watched.
    """

    fault: str
    sent: int
    hit: int
    lost: int
    wrong: int
    in_flight: int
    slowest_s: float
    back_s: float | None
    how: dict[str, int]

    def __str__(self) -> str:
        back = "later" if self.back_s is None else f"{self.back_s:.0f} s"
        told = ", ".join(f"{count} x {how}" for how, count in self.how.items())
        return (
            f"{self.fault:<34} sent {self.sent:>5}  failed first {self.hit:>4}  in the end"
            f" {self.lost:>3}  slowest {self.slowest_s:>6.2f} s  p99 back {back:>6}  {told}"
        )


def report(fault: str, load: OpenLoop, fault_s: float) -> Report:
    """Of a load that is over."""
    asked = list(load.asked.values())
    firsts = [each.tries[0] for each in asked if each.tries]
    failed = [how for each in asked for how in each.tries if how != "200"]
    return Report(
        fault=fault,
        sent=len(asked),
        hit=sum(how != "200" for how in firsts),
        lost=sum(each.right is None for each in asked),
        wrong=sum(each.right is False for each in asked),
        in_flight=sum(each.due_s - _MOMENT_S < fault_s < each.done_s + _MOMENT_S for each in asked),
        slowest_s=max(each.took_s for each in asked if each.right is not None),
        back_s=_back_s(asked, fault_s),
        how={how: failed.count(how) for how in sorted(set(failed))},
    )


def _back_s(asked: Sequence[Asked], fault_s: float) -> float | None:
    """Seconds until p99 is as before for some seconds in a row; they count by when questions were due.

    What others do on these cores later on is none of the fault's business.
    """
    seconds: dict[int, list[float]] = defaultdict(list)
    for each in asked:
        seconds[max(-1, math.floor(each.due_s - fault_s))].append(each.took_s)
    limit_s = max(_tail(seconds[-1]) * 2, _NOISE_S)
    calm = {second for second, took in seconds.items() if second >= 0 and _tail(took) <= limit_s}
    back = (second for second in sorted(calm) if {second + 1, second + 2} <= calm)
    return next(map(float, back), None)


def _tail(took: Sequence[float]) -> float:
    return sorted(took)[int(_TAIL * (len(took) - 1))] if took else 0.0


class Trial:
    """Faults under load, one after the other; `rows` tells of all."""

    def __init__(self, nodes: Nodes, questions: Iterator[tuple[str, list[float]]]) -> None:
        self._nodes, self._questions = nodes, questions
        self.per_s = _capacity_per_s(nodes.url, questions) / 2
        self.rows: list[Report] = []

    def __call__(
        self,
        fault: str,
        do: Callable[[], object],
        *,
        over: Callable[[], object] = lambda: True,
        watch_s: float = 12.0,
        url: str | None = None,
    ) -> Report:
        """Do it under load, wait until it is *over* and so much longer; then all is as it was."""
        with OpenLoop(url or self._nodes.url, self._questions, self.per_s) as load:
            fault_s = time.monotonic()
            do()
            wait_until(over)
            load.wait(watch_s)
        told = report(fault, load, fault_s)
        self.rows.append(told)
        return told


def _capacity_per_s(url: str, questions: Iterator[tuple[str, list[float]]]) -> float:
    """Answers a second to sixteen callers of this process, who each ask when they were answered."""

    async def run() -> float:
        over_s = time.monotonic() + _CALM_S
        answered = 0

        async def ask(client: AsyncClient) -> None:
            nonlocal answered
            while time.monotonic() < over_s:
                await client.predict(next(questions)[0], logits=True)
                answered += 1

        async with AsyncClient(url, concurrency=16) as client, asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(ask(client))
        return answered / _CALM_S

    return asyncio.run(run())


def laden(package: Package, target: Path) -> Package:
    """*package* with a graph that answers the same, later, and never where a text has a plural."""
    plural = 15  # the id of ##s
    model = onnx.load(str(package.folder / MODEL))
    graph = model.graph
    graph.node[-1].output[0] = "answers"
    endless = [
        helper.make_node("Equal", ["input_ids", "plural"], ["is_plural"]),
        helper.make_node("Cast", ["is_plural"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["ones"], ["any"], keepdims=0),
        helper.make_node("Mul", ["any", "endless"], ["for_plurals"]),
        helper.make_node("Shape", ["input_ids"], ["batch"], start=0, end=1),
        helper.make_node("Squeeze", ["batch"], ["texts"]),
        helper.make_node("Mul", ["texts", "turns_a_text"], ["for_all"]),
        helper.make_node("Add", ["for_plurals", "for_all"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "answers"], ["logits"], body=_turn(graph.output[0])),
    ]
    graph.node.extend(endless)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(plural), "plural"),
            numpy_helper.from_array(np.array(2**62), "endless"),
            numpy_helper.from_array(np.array(_TURNS), "turns_a_text"),
        ]
    )
    with staged(target, kind="package", lineage={}) as folder:
        for name in package.manifest.files:
            shutil.copy(package.folder / name, folder / name)
        onnx.save(model, str(folder / MODEL))
    return open_package(target)


def _turn(logits: onnx.ValueInfoProto) -> onnx.GraphProto:
    """A turn of a loop, which changes nothing."""
    shape = [
        dimension.dim_param or dimension.dim_value
        for dimension in logits.type.tensor_type.shape.dim
    ]
    given, taken = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("given", "taken")
    )
    nodes = [
        helper.make_node("Identity", ["on"], ["goes_on"]),
        helper.make_node("Identity", ["given"], ["taken"]),
    ]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    on, goes_on = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("on", "goes_on")
    )
    return helper.make_graph(nodes, "turn", [turn, on, given], [goes_on, taken])


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path], Package]) -> Package:
    """A tiny package."""
    return build(tmp_path_factory.mktemp("plain") / "tiny")


@pytest.fixture(scope="session")
def package(plain: Package, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """One for all, which answers as the plain one, later; a plural keeps a lane for ever."""
    return laden(plain, tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture(scope="session")
def redis_server(start_redis: Callable[[], Any]) -> Any:
    """What replicas share."""
    return start_redis()


@pytest.fixture(scope="session")
def questions(plain: Package) -> Iterator[tuple[str, list[float]]]:
    """Texts and their logits; hardly two are equal, so that a swapped answer shows."""
    texts = [" ".join(words) for words in combinations_with_replacement(WORDS, 9)]
    random.Random(0).shuffle(texts)
    engine = Engine(plain)

    def each() -> Iterator[tuple[str, list[float]]]:
        for start in range(0, len(texts), 256):
            part = texts[start : start + 256]
            yield from zip(part, engine.logits(part).tolist(), strict=True)

    return each()


@pytest.fixture(scope="session")
def settings(
    package: Package, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> ServeSettings:
    """Three replicas of one core each, never all on one node, with answers and a log that they share."""
    return ServeSettings(
        package=str(package.folder),
        digest=package.digest,
        lanes=1,
        threads=1,
        min_replicas=REPLICAS,
        max_replicas=REPLICAS,
        max_replicas_per_node=REPLICAS - 1,
        redis_url=redis_server.url,
        redis_budget_ms=_REDIS_BUDGET_MS,
        request_log=tmp_path_factory.mktemp("log") / "requests.jsonl",
    )


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, settings: ServeSettings) -> Iterator[Nodes]:
    """The head, two workers, three replicas on these; ready."""
    home = tmp_path_factory.mktemp("home")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MINIML_"))}
    first = random.choice(_REPLICA_PORTS)
    environment = kept | {
        "PYTHONPATH": str(ROOT),
        "MINIML_HOME": str(home),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _REPLICA_PORTS.step - 1),
    }
    running = Nodes(home / "driver.log", environment)
    try:
        running.start()
        for _ in range(2):
            running.add_worker()
        running.deploy(settings)
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def trials(
    nodes: Nodes, questions: Iterator[tuple[str, list[float]]], request: pytest.FixtureRequest
) -> Iterator[Trial]:
    """`trials(name, do)`: a fault under load. All of them are told at the end."""
    trial = Trial(nodes, questions)
    yield trial
    lines = [f"{trial.per_s:.0f} questions a second", *map(str, trial.rows)]
    request.config.stash[_TOLD] = lines


@pytest.fixture
def trial(trials: Trial, nodes: Nodes) -> Iterator[Trial]:
    """The same, from and to a cluster that is whole."""
    nodes.wait_ready()
    yield trials
    nodes.wait_ready()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a cluster is left to `make test-cluster`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of faults."""
    if lines := terminalreporter.config.stash.get(_TOLD, []):
        terminalreporter.section("faults under load")
        for line in lines:
            terminalreporter.write_line(line)
