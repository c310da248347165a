"""Laws of the HTTP surface, without Ray: the very ASGI app a replica runs, asked by httpx."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import product
from typing import Any

import httpx
import msgspec
import pytest

from serving.core import Core
from serving.engine import Engine
from serving.errors import PackageError
from serving.lanes import Lanes
from serving.package import Package
from serving.protocols.asgi import Endpoint
from serving.protocols.rendering import Shown, document
from serving.protocols.surface import build_endpoint
from serving.settings import ServeSettings
from serving.work import Answer

LANES = Lanes(count=2, threads=1)
TEXTS = ["good", "the soup was very bad and cold", "not warm " * 40, "staff", "the good soup" * 9]
Scenario = Callable[[httpx.AsyncClient, Endpoint], Coroutine[Any, Any, None]]
MakePackage = Callable[..., Package]


def ask(package: Package, scenario: Scenario, **limits: Any) -> None:
    """Run *scenario* against an endpoint that serves *package*."""

    async def run() -> None:
        settings = ServeSettings(package="p", **({"cache_bytes": 0} | limits))
        core = Core(package, LANES, settings)
        endpoint = build_endpoint(core, settings)
        transport = httpx.ASGITransport(app=endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await scenario(client, endpoint)
        await core.close()

    asyncio.run(run())


def expected(package: Package, texts: list[str]) -> list[dict[str, Any]]:
    """What the engine says of each text alone, as it goes over the wire."""
    rows = Engine(package).logits(texts)
    answers = (Answer(logits=row, queue_ms=0.0, infer_ms=0.0) for row in rows)
    return [msgspec.to_builtins(document(answer, package, Shown())) for answer in answers]


@pytest.mark.parametrize("batch_invariant", [True, False])
def test_answers_under_load_are_the_engines_alone(
    make_package: MakePackage, batch_invariant: bool
) -> None:
    """32 mixed calls at once get, in order and bit for bit, what each text gets alone."""
    package = make_package(batch_invariant=batch_invariant)

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        calls = [(TEXTS * 4)[n % 7 : n % 7 + 1 + n % 11] for n in range(32)]
        single = [n % 3 == 0 for n in range(32)]
        responses = await asyncio.gather(
            *(
                client.post("/predict", json={"text": call[0]} if one else {"texts": call})
                for call, one in zip(calls, single, strict=True)
            )
        )
        for call, one, response in zip(calls, single, responses, strict=True):
            wanted = expected(package, call)

            assert response.json() == (wanted[0] if one else wanted)
            assert response.headers["x-package-digest"] == package.digest
            assert float(response.headers["x-queue-ms"]) >= 0
            assert float(response.headers["x-infer-ms"]) > 0

    ask(package, scenario)


def test_every_score_on_request(package: Package) -> None:
    """With scores: all, every label has its score; they sum to one and the best is the answer."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        answer = (await client.post("/predict", json={"text": "good", "scores": "all"})).json()

        assert list(answer["scores"]) == list(package.config.labels)
        assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-6)
        assert (
            answer["scores"][answer["label"]] == answer["score"] == max(answer["scores"].values())
        )

    ask(package, scenario)


def test_multi_label_answers(make_package: MakePackage) -> None:
    """A multi-label answer lists what reaches its threshold; the top one is `label`, or null."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        body = {"texts": TEXTS, "scores": "all"}
        for answer in (await client.post("/predict", json=body)).json():
            reached = {name: score for name, score in answer["scores"].items() if score >= 0.5}

            assert {given["label"]: given["score"] for given in answer["labels"]} == reached
            assert answer["label"] == (answer["labels"][0]["label"] if reached else None)
            assert answer["score"] == max(answer["scores"].values())

    ask(make_package(task="multi_label"), scenario)


def test_pairs(make_package: MakePackage) -> None:
    """A pair model answers pairs, and the second text counts."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        body = {"texts": ["good", "good"], "text_pairs": ["bad cold", "warm"]}
        one, other = (await client.post("/predict", json=body)).json()
        single = await client.post("/predict", json={"text": "good", "text_pair": "warm"})

        assert one != other
        assert single.json() == other

    ask(make_package(text_pair=True), scenario)


@pytest.mark.parametrize(
    ("asked", "body", "status", "kind"),
    [
        ("POST /predict", b"{", 400, "MalformedBody"),
        ("POST /predict", b'{"text": 1}', 422, "WrongInput"),
        ("POST /predict", b'{"texts": []}', 422, "WrongInput"),
        ("POST /predict", b'{"text": ""}', 422, "WrongInput"),
        ("POST /predict", b'{"text": "a", "top": 1}', 422, "WrongInput"),
        ("POST /predict", b'{"text": "%s"}' % (b"a" * 1_000_000), 413, "TooLarge"),
        ("POST /predict", b" " * (5 * 2**20), 413, "TooLarge"),
        ("GET /predict", b"", 405, "WrongMethod"),
        ("DELETE /predict", b"", 405, "WrongMethod"),
        ("POST /healthz", b"", 405, "WrongMethod"),
        ("POST /docs", b"", 405, "WrongMethod"),
        ("GET /nowhere", b"", 404, "UnknownPath"),
    ],
)
def test_refusals(package: Package, asked: str, body: bytes, status: int, kind: str) -> None:
    """Every refusal has its status and the one error body; 405 names the methods there are."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        response = await client.request(*asked.split(), content=body)
        error = response.json()["error"]

        assert (response.status_code, error["type"]) == (status, kind)
        assert error["message"]
        assert set(error) == {"type", "message", "hint"}
        assert bool(response.headers.get("allow")) == (status == 405)

    ask(package, scenario)


def test_a_deadline_in_the_past_of_the_queue(package: Package) -> None:
    """A caller's deadline that compute cannot meet gives 504; a sane one is met; a wrong one 422."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        for value, status in (("0.0001", 504), ("60000", 200), ("-1", 422), ("soon", 422)):
            headers = {"x-deadline-ms": value}
            response = await client.post("/predict", json={"text": "good"}, headers=headers)

            assert response.status_code == status

    ask(package, scenario)


def test_a_priority_is_one_of_two(package: Package) -> None:
    """Each priority is taken; another word is refused with the words there are."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        for value, status in (("interactive", 200), ("bulk", 200), ("urgent", 422)):
            headers = {"x-priority": value}
            response = await client.post("/predict", json={"text": "good"}, headers=headers)

            assert response.status_code == status
        assert "interactive, bulk" in response.json()["error"]["message"]

    ask(package, scenario)


def test_overload_answers_at_once_with_retry_after(package: Package) -> None:
    """Beyond the queue's bound calls get 429 with Retry-After; the accepted ones are answered."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        body = {"texts": ["the soup was good"] * 64}
        calls = [client.post("/predict", json=body) for _ in range(12)]
        responses = await asyncio.gather(*calls)
        refused = [r for r in responses if r.status_code == 429]

        assert {r.status_code for r in responses} == {200, 429}
        assert all(int(r.headers["retry-after"]) >= 1 for r in refused)
        assert {r.json()["error"]["type"] for r in refused} == {"Overloaded"}

    ask(package, scenario, max_queue_ms=0.5, max_batch=1)


def test_known_answers_are_given_though_the_queue_is_full(package: Package) -> None:
    """A full queue refuses what must be computed, and not what is known."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        known = {"text": "good"}
        await client.post("/predict", json=known)
        await client.post("/predict", json=known)
        words = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was")
        texts = [" ".join(three) for three in product(words, repeat=3)]  # none is another's equal
        work = [
            client.post("/predict", json={"texts": texts[start : start + 64]})
            for start in range(0, len(texts), 64)
        ]
        busy = [asyncio.create_task(call) for call in work]
        await asyncio.sleep(0)
        again = await client.post("/predict", json=known)
        statuses = {response.status_code for response in await asyncio.gather(*busy)}

        assert statuses == {200, 429}
        assert (again.status_code, again.headers["x-cache"]) == (200, "hit")

    ask(package, scenario, max_queue_ms=0.5, max_batch=1, cache_bytes=2**20)


def test_readiness_ends_before_life(package: Package) -> None:
    """A draining replica is alive but not ready, and says when to ask again."""

    async def scenario(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        assert [(await client.get(p)).status_code for p in ("/healthz", "/readyz")] == [200, 200]
        endpoint.in_flight.draining = True
        ready = await client.get("/readyz")

        assert (await client.get("/healthz")).status_code == 200
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")

    ask(package, scenario)


def test_who_drains_answers_those_who_are_here_and_refuses_who_comes(package: Package) -> None:
    """A body that is still on its way is answered; who asks later is told when to ask again."""

    async def scenario(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        half, rest = asyncio.Event(), asyncio.Event()

        async def lines() -> AsyncIterator[bytes]:
            yield b'{"text": "good"}\n'
            half.set()
            await rest.wait()
            yield b'{"text": "bad soup"}\n'

        kind = {"content-type": "application/x-ndjson"}
        stream = asyncio.create_task(client.post("/predict", content=lines(), headers=kind))
        await half.wait()
        ending = asyncio.create_task(endpoint.in_flight.finish(60))
        await asyncio.sleep(0)
        late = [
            await client.post("/predict", json={"text": "good"}),
            await client.post("/predict", content=b'{"text": "good"}\n', headers=kind),
        ]

        assert not ending.done()
        rest.set()
        answers = (await stream).text.splitlines()
        assert await ending == 0
        assert ['"label"' in answer for answer in answers] == [True, True]
        for refused in late:
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["type"] == "NotReady"

    ask(package, scenario)


def test_who_drains_does_not_wait_for_ever(package: Package) -> None:
    """A request that takes longer than there is time is counted, not waited for."""

    async def scenario(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        begun, never = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            begun.set()
            yield b"{"
            await never.wait()

        stuck = asyncio.create_task(client.post("/predict", content=body()))
        await begun.wait()

        assert await endpoint.in_flight.finish(0.01) == 1
        stuck.cancel()

    ask(package, scenario)


def test_the_contract_describes_what_is_there(package: Package) -> None:
    """The OpenAPI document names every path, and all its references lead somewhere."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        document = (await client.get("/openapi.json")).json()
        names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))

        assert {"/predict", "/healthz", "/readyz", "/info"} <= set(document["paths"])
        assert names <= set(document["components"]["schemas"])

    ask(package, scenario)


def test_info_says_what_is_served(package: Package) -> None:
    """`/info` gives the digest, the labels, the task and the lanes."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        info = (await client.get("/info")).json()

        assert info["package_digest"] == package.digest
        assert tuple(info["labels"]) == package.config.labels
        assert (info["task"], info["lanes"]) == ("single_label", {"count": 2, "threads": 1})

    ask(package, scenario)


def test_the_live_numbers_add_up(package: Package) -> None:
    """Every text is counted once, tokens are fewer than with padding, CPU is the process's own."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        before = (await client.get("/info")).json()["now"]
        began_s = time.process_time()
        await asyncio.gather(
            *(client.post("/predict", json={"texts": [*TEXTS, "good " * 3000]}) for _ in range(8))
        )
        after = (await client.get("/info")).json()["now"]
        took_s = time.process_time() - began_s
        grown = {name: after[name] - before[name] for name in before}

        assert grown["texts"] == 8 * (len(TEXTS) + 1)
        assert 1 <= grown["batches"] <= grown["texts"]
        assert 0 < after["useful_token_ratio"] <= 1
        assert min(grown["lanes_cpu_s"], grown["tokenize_cpu_s"]) > 0
        assert grown["lanes_cpu_s"] + grown["tokenize_cpu_s"] <= took_s
        assert after["queued_ms"] == 0

    ask(package, scenario)


def test_the_page_loads_nothing_from_elsewhere(package: Package) -> None:
    """The page names no other host, so it works behind a firewall."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        page = (await client.get("/docs")).text

        assert "<html" in page
        assert not re.search(r"(?:src|href|url|import)\W{0,3}(?:https?:)?//", page)

    ask(package, scenario)


def test_a_package_with_wrong_golden_answers_is_not_served(make_package: MakePackage) -> None:
    """A package that answers otherwise than on the machine of its export is refused at the start."""
    with pytest.raises(PackageError, match="golden answers"):
        Core(make_package(golden_shift=1.0), LANES, ServeSettings(package="p"))
