"""Laws of several models in one replica: each door leads to the one that is named, loaded when it is.

On a real socket, without Ray; `test_cluster` asks a whole server.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest
import uvicorn

from serving.access.gate import Gate
from serving.access.keys import KeyRing, create_key
from serving.access.metering import Meter
from serving.client import AsyncClient, Client, RemoteError
from serving.core import Core
from serving.engine import Engine
from serving.errors import NotReady
from serving.grpc_door import Straight
from serving.lanes import Lanes
from serving.models.metrics import ModelMetrics
from serving.models.names import named_apart
from serving.models.routing import Models
from serving.observing.traffic import Traffic
from serving.options import DeployOptions, PredictOptions
from serving.package import Package, open_package
from serving.predict import NoInput, predict_texts
from serving.protocols import open_inference_pb2 as pb
from serving.protocols.calls import CALLS, SERVICE
from serving.protocols.surface import build_endpoint
from serving.rollout.deploying import deploy
from serving.rollout.following import Rollout
from serving.rollout.ledger import Ledger, Memory
from serving.rollout.shelf import Loaded, Shelf
from serving.rollout.wanted import Pinned, Wanted, WantedChange, WantedModel
from serving.rollout.witness import Witness
from serving.settings import ServeSettings

MakePackage = Callable[..., Package]
LONG_S = 60.0
TEXT = "the soup was very good"
PLENTY = 2**40


def pinned(package: Package) -> Pinned:
    """Its folder."""
    return Pinned(package=str(package.folder), digest=package.digest)


class Replica:
    """What a replica of Ray's holds of several models, without Ray; *packages*: the first one first."""

    def __init__(self, packages: Sequence[Package], *, most_bytes: int, keys: Path | None) -> None:
        first, *others = packages
        self._settings = ServeSettings(
            package="p", rollout_without_key=True, keys=None if keys is None else str(keys)
        )
        self._gate = Gate(KeyRing(keys), Meter(None)) if keys else None
        self._traffic = Traffic()
        self.loads: Counter[str] = Counter()
        self.may_load = threading.Event()
        self.may_load.set()
        model = WantedModel(name=first.config.name, package=str(first.folder), digest=first.digest)
        wanted = named_apart(model, [(each.config.name, pinned(each)) for each in others])
        self.models: Models | None = None
        shelf = Shelf(model, self.load)
        self.models = Models(shelf, wanted, self.load, most_bytes=most_bytes, gate=self._gate)
        self._traffic.registry.register(ModelMetrics(self.models.others.all))
        self.rollout = Rollout(
            *(Ledger(Memory(), "test"), shelf, Wanted(revision=0, models=wanted)),
            models=self.models,
        )

    def load(self, source: Pinned) -> Loaded:
        """As `serving.app` does."""
        self.may_load.wait(LONG_S)
        self.loads[source.digest] += 1
        package, witness = open_package(Path(source.package)), Witness()
        core = Core(package, Lanes(count=1, threads=1), self._settings)
        endpoint = build_endpoint(
            *(core, self._settings),
            gate=self._gate,
            rollouts=self,
            witnesses=[witness],
            traffic=self._traffic,
            models=lambda: self.models.listing() if self.models else [],
        )
        return Loaded(source=source, core=core, endpoint=endpoint, witness=witness)

    async def states(self) -> list[dict[str, Any]]:
        """Of this one."""
        return [await self.rollout.state()]

    async def change(self, change: WantedChange) -> Wanted:
        """Here alone."""
        return await self.rollout.change(change)

    def has(self, *packages: Package) -> bool:
        """Whether these are loaded, and no others."""
        assert self.models
        loaded = {each.source.digest for each in self.models.loaded}
        return loaded == {package.digest for package in packages}


@contextmanager
def listening(
    *packages: Package, most_bytes: int = PLENTY, keys: Path | None = None
) -> Iterator[SimpleNamespace]:
    """A replica on real sockets: url, grpc (an address), replica."""
    ready: Future[tuple[int, int, Replica]] = Future()
    over: Future[Callable[[], object]] = Future()

    async def run() -> None:
        replica = Replica(packages, most_bytes=most_bytes, keys=keys)
        assert replica.models
        config = uvicorn.Config(replica.models, port=0, log_level="error", lifespan="off")
        server, calls, stop = uvicorn.Server(config), grpc.aio.server(), asyncio.Event()
        nobody = SimpleNamespace(**dict.fromkeys(CALLS))
        calls.add_generic_rpc_handlers((Straight(nobody, endpoint=lambda: replica.models),))
        port = calls.add_insecure_port("127.0.0.1:0")
        await calls.start()
        listener = config.bind_socket()
        serving = asyncio.create_task(server.serve([listener]))
        loop = asyncio.get_running_loop()
        over.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set_result((listener.getsockname()[1], port, replica))
        await stop.wait()
        server.should_exit = True
        await serving
        await calls.stop(0)
        await replica.rollout.close()
        await replica.models.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        port, grpc_port, replica = ready.result(LONG_S)
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            client.wait_ready(timeout_s=LONG_S)
        yield SimpleNamespace(url=url, grpc=f"127.0.0.1:{grpc_port}", replica=replica)
    finally:
        over.result(LONG_S)()
        thread.join()


def wait_until(true: Callable[[], bool]) -> None:
    """Look again and again, and give up after a long time."""
    deadline_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture
def stars(make_package: MakePackage) -> Package:
    """The first model."""
    return make_package(name="stars", seed=1)


@pytest.fixture
def topics(make_package: MakePackage) -> Package:
    """With other labels, and more of them."""
    return make_package(name="topics", seed=2, labels=("food", "staff", "place", "price"))


@pytest.fixture
def broken(make_package: MakePackage) -> Package:
    """Does not reproduce its golden answers."""
    return make_package(name="broken", seed=3, golden_shift=1.0)


TENSORS = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}
DOORS: dict[str, Any] = {
    "/predict": {"json": {"text": TEXT, "scores": "all"}},
    "/": {"json": {"inputs": TEXT, "parameters": {"top_k": 9}}},
    "/v1/classify": {"json": {"input": TEXT}},
    "lines": {
        "content": json.dumps({"text": TEXT}) + "\n",
        "headers": {"content-type": "application/x-ndjson"},
    },
}


def test_every_door_leads_to_the_model_that_is_named(stars: Package, topics: Package) -> None:
    """The labels of the answer are those of the package whose digest its header names."""
    with listening(stars, topics) as there, httpx.Client(base_url=there.url) as client:
        for package in (stars, topics, stars):
            name, digest = package.config.name, package.digest
            names = (name, f"{name}@{digest[:12]}")
            (row,) = Engine(package).logits([TEXT])
            label = package.config.labels[int(row.argmax())]
            for door, ask in DOORS.items():
                for called in names:
                    headers = ask.get("headers", {}) | {"x-model": called}
                    path = "/predict" if door == "lines" else door
                    response = client.post(path, **(ask | {"headers": headers}))
                    assert response.headers.get("x-package-digest", digest) == digest
                    assert response.status_code == 200, response.text
                    assert f'"{label}"' in response.text
            for place in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{digest[:12]}"):
                infer = client.post(f"{place}/infer", json=TENSORS)
                about, ready = client.get(place).json(), client.get(f"{place}/ready").json()
                logits = {each["name"]: each["data"] for each in infer.json()["outputs"]}["logits"]
                assert infer.headers["x-package-digest"] == digest
                assert logits == row.tolist()
                assert about["versions"] == [digest[:12]]
                assert ready == {"name": name, "ready": True}


def infer(address: str, model: str, version: str = "", **metadata: str) -> tuple[Any, Any]:
    """What comes back over gRPC, and what goes beside it."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(TEXT.encode())
    message = pb.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor])
    call = CALLS["ModelInfer"]
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=call.takes.SerializeToString,
            response_deserializer=call.gives.FromString,
        )
        sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        answer, done = ask.with_call(message, metadata=sent, timeout=LONG_S)
    return answer, dict(done.trailing_metadata())


def test_grpc_leads_to_the_model_of_the_message(stars: Package, topics: Package) -> None:
    """By name, or name and version; another name or version is NOT_FOUND, with those there are."""
    with listening(stars, topics) as there:
        for package in (topics, stars):
            name, digest = package.config.name, package.digest
            for version in ("", digest[:12], digest):
                answer, beside = infer(there.grpc, name, version)
                assert beside["x-package-digest"] == digest
                assert (answer.model_name, answer.model_version) == (name, digest[:12])
                scores = next(out for out in answer.outputs if out.name == "scores")
                assert list(scores.shape) == [1, len(package.config.labels)]
        for model, version in (("other", ""), ("topics", stars.digest[:12]), ("stars", "9" * 12)):
            with pytest.raises(grpc.RpcError, match=f"stars@{stars.digest[:12]}, topics@") as error:
                infer(there.grpc, model, version)
            assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_clients_and_the_command_name_a_model(
    stars: Package, topics: Package, tmp_path: Path
) -> None:
    """`model=` and `--model`; without, the first answers; a name that is not there is told."""
    asked = tmp_path / "texts"
    asked.write_text(TEXT)

    async def ask(url: str) -> Any:
        async with AsyncClient(url, model="topics") as client:
            return await client.predict(TEXT)

    with listening(stars, topics) as there:
        with Client(there.url, model="topics") as client:
            told = client.predict(TEXT)
        by_command = predict_texts(PredictOptions(texts=(TEXT,), url=there.url, model="topics"))
        first = predict_texts(PredictOptions(texts=(TEXT,), url=there.url))
        also = asyncio.run(ask(there.url))
        with (
            Client(there.url, model="other") as client,
            pytest.raises(RemoteError, match="topics@"),
        ):
            client.predict(TEXT)

    assert told == also == by_command.answers[0]
    assert told["label"] in topics.config.labels
    assert first.answers[0]["label"] in stars.config.labels
    with pytest.raises(NoInput, match="--model goes with --url"):
        predict_texts(PredictOptions(texts=(TEXT,), model="topics"))


def test_many_who_come_first_cause_one_load(stars: Package, topics: Package) -> None:
    """It is loaded when it is asked for, not before; who waits no longer than his deadline is told."""
    with listening(stars, topics) as there:
        replica: Replica = there.replica
        assert replica.has(stars)
        replica.may_load.clear()
        post: dict[str, Any] = {
            "url": f"{there.url}/predict",
            "json": {"text": TEXT},
            "timeout": LONG_S,
        }
        with ThreadPoolExecutor(12) as callers:
            asked = [
                callers.submit(httpx.post, **post, headers={"x-model": "topics"}) for _ in range(10)
            ]
            hurried = httpx.post(**post, headers={"x-model": "topics", "x-deadline-ms": "50"})
            others = [httpx.post(**post, headers={"x-model": "stars"}) for _ in range(5)]
            replica.may_load.set()
            given = [each.result(LONG_S) for each in asked]

        assert (hurried.status_code, hurried.json()["error"]["type"]) == (504, "DeadlineExceeded")
        assert {each.headers["x-package-digest"] for each in others} == {stars.digest}
        assert {each.headers["x-package-digest"] for each in given} == {topics.digest}
        assert replica.loads == {stars.digest: 1, topics.digest: 1}


def test_who_was_used_last_stays_within_the_budget(make_package: MakePackage) -> None:
    """Of three with room for one the last is loaded, the first model always; each answers all the same."""
    packages = [make_package(name=name, seed=seed) for seed, name in enumerate("abcd")]
    first, *others = packages
    with listening(*packages, most_bytes=1) as there, Client(there.url) as client:
        for package in (*others, *others):
            with Client(there.url, model=package.config.name) as named:
                named.predict(TEXT)
            client.predict(TEXT)
            wait_until(lambda package=package: there.replica.has(first, package))  # type: ignore[misc]
        page = httpx.get(f"{there.url}/metrics").text

        assert there.replica.loads == {first.digest: 1} | {each.digest: 2 for each in others}
        for name, loaded in zip("bcd", "001", strict=True):
            assert f'miniml_model_loads_total{{model="{name}"}} 2.0' in page
            (shown,) = [
                line for line in page.splitlines() if f'model_loaded{{model="{name}"' in line
            ]
            assert shown.endswith(f" {loaded}.0")


def test_who_is_in_use_is_not_unloaded(stars: Package, make_package: MakePackage) -> None:
    """A stream of lines that is open keeps its model, though another needs the room; then it goes."""
    one, other = (make_package(name=name, seed=seed) for seed, name in enumerate(("one", "other")))
    more, seen = threading.Event(), threading.Event()

    def lines() -> Iterator[bytes]:
        yield json.dumps({"text": TEXT}).encode() + b"\n"
        more.wait(LONG_S)
        yield json.dumps({"text": TEXT}).encode() + b"\n"

    def stream(url: str) -> list[str]:
        headers = {"x-model": "one", "content-type": "application/x-ndjson"}
        with httpx.stream(
            "POST", f"{url}/predict", content=lines(), headers=headers, timeout=LONG_S
        ) as response:
            answers = []
            for line in response.iter_lines():
                answers.append(line)
                seen.set()
        return answers

    with listening(stars, one, other, most_bytes=1) as there, ThreadPoolExecutor(1) as caller:
        streaming = caller.submit(stream, there.url)
        wait_until(lambda: there.replica.has(stars, one))
        with Client(there.url, model="other") as client:
            client.predict(TEXT)
        assert any(each.source.digest == one.digest for each in there.replica.models.others.loaded)
        more.set()
        answers = streaming.result(LONG_S)
        wait_until(lambda: len(there.replica.models.others.loaded) == 1)

    assert len(answers) == 2
    assert all('"label"' in answer for answer in answers)


def test_a_load_that_fails_refuses_that_model_alone(
    stars: Package, topics: Package, broken: Package
) -> None:
    """503 with the reason and when to come again; not tried again until then, and nobody else's fault."""
    with listening(stars, broken, topics) as there, httpx.Client(base_url=there.url) as client:

        def ask(model: str) -> httpx.Response:
            headers = {"x-model": model}
            return client.post("/predict", json={"text": TEXT}, headers=headers)

        refused = [ask("broken") for _ in range(3)]
        with pytest.raises(grpc.RpcError, match="golden answers") as error:
            infer(there.grpc, "broken")
        page, state = client.get("/metrics").text, client.get("/rollout").json()

        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert [each.status_code for each in refused] == [503] * 3
        assert all("golden answers" in each.json()["error"]["message"] for each in refused)
        assert all(1 <= int(each.headers["retry-after"]) <= 30 for each in refused)
        assert there.replica.loads[broken.digest] == 1
        assert [ask(each).status_code for each in ("stars", "topics")] == [200, 200]
        assert 'miniml_model_load_failures_total{model="broken"} 1.0' in page
        assert f'miniml_refused_total{{door="other",type="{NotReady.__name__}"}} 4.0' in page
        assert f'package="{stars.digest[:12]}",status="503"' not in page
        shown = {each["name"]: each for each in state["replicas"][0]["models"]}
        assert shown["stars"]["failed"] == 0
        assert (shown["topics"]["loaded"], shown["broken"]["loaded"]) == (False, False)
        assert "golden answers" in shown["broken"]["refused"]


def test_without_a_key_nothing_is_loaded(stars: Package, topics: Package, tmp_path: Path) -> None:
    """Nor by a probe, which has none: who may not ask may not have memory taken, either."""
    keys = tmp_path / "keys.json"
    _, secret = create_key(keys, "web")
    with listening(stars, topics, keys=keys) as there, httpx.Client(base_url=there.url) as client:
        model = {"x-model": "topics"}
        closed = client.post("/predict", json={"text": TEXT}, headers=model)
        also = client.get("/v2/models/topics")
        probed = client.get("/readyz", headers=model)
        with pytest.raises(grpc.RpcError) as error:
            infer(there.grpc, "topics")
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (closed.status_code, also.status_code, probed.status_code) == (401, 401, 200)
        assert there.replica.has(stars)
        opened = client.post("/predict", json={"text": TEXT}, headers=model | {"x-api-key": secret})
        _, beside = infer(there.grpc, "topics", x_api_key=secret)

    assert opened.headers["x-package-digest"] == beside["x-package-digest"] == topics.digest


def test_a_model_is_replaced_by_name(
    stars: Package, topics: Package, broken: Package, make_package: MakePackage
) -> None:
    """And goes back; one that does not prove itself changes nothing; canary and shadow are the first's."""
    newer = make_package(name="topics", seed=9)

    def change(url: str, package: Package | None = None, **options: Any) -> Any:
        folder = str(package.folder) if package else None
        return deploy(DeployOptions(package=folder, url=url, name="topics", **options))

    with listening(stars, topics) as there, Client(there.url, model="topics") as client:
        url = there.url
        told = change(url, newer)
        assert (told.digest, told.watched_s) == (newer.digest, 0)
        assert there.replica.has(stars, newer)
        with pytest.raises(RemoteError, match="golden answers"):
            change(url, broken)
        assert client.predict(TEXT)["label"] in newer.config.labels
        assert there.replica.has(stars, newer)
        with pytest.raises(RemoteError, match="stars alone, the first model"):
            change(url, topics, canary="10%")
        with pytest.raises(RemoteError, match="There is no model 'other' here, but stars, topics"):
            deploy(DeployOptions(package=str(newer.folder), url=url, name="other"))
        assert change(url, topics).digest == topics.digest
        assert change(url, rollback=True).digest == newer.digest
        models = httpx.get(f"{url}/rollout").json()["wanted"]["models"]

    assert [model["digest"] for model in models] == [stars.digest, newer.digest]


def test_answer_and_digest_belong_together_whatever_is_loaded(
    stars: Package, topics: Package, make_package: MakePackage
) -> None:
    """While two models take each other's memory and one is replaced: none fails, each is its digest's."""
    spam, newer = make_package(name="spam", seed=4), make_package(name="topics", seed=9)
    packages = (stars, topics, spam, newer)
    right = {each.digest: Engine(each).logits([TEXT])[0].tolist() for each in packages}
    body = {"text": TEXT, "logits": True}

    def ask(url: str, name: str) -> list[tuple[str, bool]]:
        seen = []
        with httpx.Client(base_url=url, timeout=LONG_S) as client:
            for _ in range(8):
                answer = client.post("/predict", json=body, headers={"x-model": name})
                digest = answer.raise_for_status().headers["x-package-digest"]
                logits = list(answer.json()["logits"].values())
                seen.append((digest, logits == right[digest]))
        return seen

    with (
        listening(stars, topics, spam, most_bytes=1) as there,
        ThreadPoolExecutor(6) as callers,
    ):
        names = ("stars", "topics", "spam") * 2
        asked = [callers.submit(ask, there.url, name) for name in names]
        deploy(DeployOptions(package=str(newer.folder), url=there.url, name="topics"))
        seen: dict[str, set[tuple[str, bool]]] = {name: set() for name in names}
        for name, each in zip(names, asked, strict=True):
            seen[name] |= set(each.result(LONG_S))

    assert seen["stars"] == {(stars.digest, True)}
    assert seen["spam"] == {(spam.digest, True)}
    assert seen["topics"] <= {(topics.digest, True), (newer.digest, True)}


def test_all_models_are_shown(stars: Package, topics: Package) -> None:
    """By `/info`, in the index of Triton's clients, and by `/rollout`: loaded or not, and how large."""
    with listening(stars, topics) as there, httpx.Client(base_url=there.url) as client:
        before = client.get("/info").json()["models"]
        index = client.post("/v2/repository/index").json()
        about = client.get("/info", headers={"x-model": "topics"}).json()
        after = client.get("/info").json()["models"]
        rolled = client.get("/rollout").json()["replicas"][0]["models"]

    assert [(each["name"], each["loaded"]) for each in before] == [
        ("stars", True),
        ("topics", False),
    ]
    assert [(each["name"], each["state"]) for each in index] == [
        ("stars", "READY"),
        ("topics", "UNAVAILABLE"),
    ]
    assert (about["name"], about["package_digest"]) == ("topics", topics.digest)
    assert [each["loaded"] for each in after] == [True, True]
    size = sum(file.stat().st_size for file in topics.folder.iterdir())
    assert size <= after[1]["bytes"] <= 4 * size + 64 * 2**20
    assert [each["digest"] for each in rolled] == [stars.digest, topics.digest]


def test_work_of_all_models_is_reported(stars: Package, topics: Package) -> None:
    """To the autoscaler: texts of both, since they share the cores."""
    with listening(stars, topics) as there:
        for name, count in (("stars", 3), ("topics", 2)):
            with Client(there.url, model=name) as client:
                client.predict_many(["good", "bad", "soup"][:count])
        report = there.replica.models.report()

    assert report["texts"] == 5
    assert report["load"] > 0


def test_who_shuts_down_loads_nothing(stars: Package, topics: Package) -> None:
    """Nobody waits for a model that will not come."""

    async def law() -> None:
        replica = Replica((stars, topics), most_bytes=PLENTY, keys=None)
        assert replica.models
        others = replica.models.others
        assert await replica.models.finish(LONG_S) == 0
        with others.used(others.all[0]), pytest.raises(NotReady, match="shutting down"):
            await others.opened(others.all[0])
        await replica.models.close()
        assert replica.loads == {stars.digest: 1}

    asyncio.run(law())


def test_one_package_may_answer_under_two_names(stars: Package, topics: Package) -> None:
    """The first model gets the package of another, and goes back: the other's requests are counted on."""
    counted = f'miniml_package_requests_total{{package="{topics.digest[:12]}",status="200"}} 3.0'
    with listening(stars, topics) as there, Client(there.url, model="topics") as client:
        client.predict("good")
        deploy(DeployOptions(package=str(topics.folder), url=there.url, watch="0"))
        with Client(there.url) as first:
            assert first.predict("bad")["label"] in topics.config.labels
        deploy(DeployOptions(url=there.url, rollback=True))
        wait_until(lambda: not there.replica.models.shelf._retiring)
        client.predict("soup")
        page = httpx.get(f"{there.url}/metrics").text

    assert counted in page
