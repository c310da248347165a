"""Laws of the way past Ray: the same answers, and nothing that is Ray's gets lost or reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
import uvicorn

from serving.core import Core
from serving.lanes import Lanes
from serving.package import Package
from serving.protocols.asgi import Endpoint, Message, Send
from serving.protocols.leaving import Receive
from serving.protocols.surface import build_endpoint
from serving.settings import ServeSettings
from serving.shortcut import Shortcut, middlewares

LANES = Lanes(count=1, threads=1)
Scenario = Callable[[httpx.AsyncClient, Endpoint], Coroutine[Any, Any, None]]


class Behind:
    """Stands for Ray: says that it was asked, and with which headers."""

    async def __call__(self, scope: Message, _: Receive, send: Send) -> None:
        """418, and the names of the headers as the body."""
        body = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": body})


def through(package: Package, scenario: Scenario) -> None:
    """Run *scenario* with a client of the shortcut to an endpoint that serves *package*."""

    async def run() -> None:
        settings = ServeSettings(package="p")
        core = Core(package, LANES, settings)
        endpoint = build_endpoint(core, settings)
        transport = httpx.ASGITransport(app=Shortcut(Behind(), endpoint=lambda: endpoint))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await scenario(client, endpoint)
        await core.close()

    asyncio.run(run())


def test_hot_paths_answer_as_the_endpoint_does(package: Package) -> None:
    """On every hot path status and body are the endpoint's own; Ray is not asked."""

    async def scenario(client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        calls = [
            ("POST", "/predict", b'{"texts": ["good", "bad soup"]}', 200),
            ("POST", "/", b'{"inputs": "good"}', 200),
            ("GET", "/v2/models/tiny", b"", 200),
            ("POST", "/predict", b"{", 400),
            ("GET", "/predict", b"", 405),
            ("GET", "/healthz", b"", 200),
            ("GET", "/readyz", b"", 200),
        ]
        direct = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=endpoint), base_url="http://test"
        )
        for method, path, body, status in calls:
            ours = await client.request(method, path, content=body)
            its_own = await direct.request(method, path, content=body)

            assert ours.status_code == its_own.status_code == status
            assert ours.content == its_own.content

    through(package, scenario)


def test_every_answer_has_one_request_id(package: Package) -> None:
    """The caller's own comes back, once; without one each answer has a new one."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        given = await client.get("/healthz", headers={"x-request-id": "mine"})
        new = [(await client.get("/healthz")).headers.get_list("x-request-id") for _ in range(3)]

        assert given.headers.get_list("x-request-id") == ["mine"]
        assert [len(ids) for ids in new] == [1, 1, 1]
        assert len({ids[0] for ids in new}) == 3

    through(package, scenario)


@pytest.mark.parametrize("unfit", ["x" * 129, "caf\xe9"])
def test_an_unfit_request_id_is_replaced(package: Package, unfit: str) -> None:
    """What is too long for a log or no ASCII does not come back."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        given = await client.get("/healthz", headers=[(b"x-request-id", unfit.encode("latin-1"))])

        assert len(given.headers.get_list("x-request-id")) == 1
        assert unfit not in given.headers["x-request-id"]

    through(package, scenario)


@pytest.mark.parametrize(
    "control",
    [
        "X-Request-Timeout-Seconds",
        "x-request-disconnect-disabled",
        "serve_multiplexed_model_id",
        "Serve-Multiplexed-Model-Id",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
    ],
)
def test_everything_else_is_rays_but_not_its_controls(package: Package, control: str) -> None:
    """Other paths reach what is behind, with every header but those that steer it."""

    async def scenario(client: httpx.AsyncClient, _: Endpoint) -> None:
        response = await client.get("/info", headers={control: "1", "x-mine": "1"})
        names = response.text.split()

        assert response.status_code == 418
        assert "x-mine" in names
        assert control.lower() not in names

    through(package, scenario)


def test_outside_a_replica_all_is_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that is no replica, a proxy, even the hot paths reach what is behind."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))

    async def run() -> httpx.Response:
        (middleware,) = middlewares()
        app: Any = middleware.cls(Behind(), *middleware.args, **middleware.kwargs)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/healthz")

    assert asyncio.run(run()).status_code == 418
