"""Laws of the errors: each is met at a real server as it is documented, and none is left out."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from serving import errors
from serving.access.keys import create_key
from serving.core import Core
from serving.environment import free_ports
from serving.errors import ServingError, Unavailable
from serving.lanes import Lanes
from serving.package import Package
from serving.protocols import open_inference_pb2 as pb
from serving.protocols.contract import error_table, request_errors
from serving.protocols.surface import build_endpoint
from serving.settings import ServeSettings

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
DOCUMENTED = Path(__file__).parent.parent.parent / "docs" / "api.md"
START_S = 20.0
GOOD = {"text": "good"}
FAILING = '''
"""A canonicaliser that fails on one word."""


def form(text):
    """The text, but for that."""
    if "poison" in text:
        raise ValueError(text)
    return text
'''


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How an error is met. door: where it is counted. key: limits of the key it is asked with."""

    door: str
    ask: Callable[[httpx.Client], httpx.Response]
    settings: dict[str, Any] = field(default_factory=dict)
    key: dict[str, Any] | None = None
    damaged_keys: bool = False


def post(document: Any, **headers: str) -> Callable[[httpx.Client], httpx.Response]:
    """At the native door."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda client: client.post("/predict", json=document, headers=named)


def until_refused(ask: Callable[[httpx.Client], httpx.Response]) -> Callable[..., httpx.Response]:
    """Again and again: a second's or a day's window may end in between."""

    def asking(client: httpx.Client) -> httpx.Response:
        deadline_s = time.monotonic() + START_S
        while (response := ask(client)).is_success:
            assert time.monotonic() < deadline_s
        return response

    return asking


def half_a_body(client: httpx.Client) -> httpx.Response:
    """A byte of the hundred that were promised."""
    address = urlsplit(str(client.base_url))
    with socket.create_connection((str(address.hostname), int(address.port or 0)), 20) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{")
        got = b""
        while b"}}" not in got and (piece := line.recv(4096)):
            got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


def beside_a_stream(client: httpx.Client) -> httpx.Response:
    """A stream of lines while another is open."""
    address = urlsplit(str(client.base_url))
    lines = {"content-type": "application/x-ndjson"}
    with socket.create_connection((str(address.hostname), int(address.port or 0)), 20) as line:
        head = b"POST /predict HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n"
        line.sendall(head + b"content-type: application/x-ndjson\r\n\r\n")
        assert b" 200 " in line.recv(4096)
        return client.post("/predict", content="", headers=lines)


MET: dict[str, Asked] = {
    "MalformedBody": Asked(door="predict", ask=lambda client: client.post("/predict", content="{")),
    "Unauthenticated": Asked(
        door="gate", ask=lambda client: client.get("/info", headers={"x-api-key": ""}), key={}
    ),
    "Forbidden": Asked(door="gate", ask=lambda client: client.delete("/cache"), key={}),
    "UnknownPath": Asked(door="other", ask=lambda client: client.get("/nowhere")),
    "NoCache": Asked(
        door="other", ask=lambda client: client.get("/cache"), settings={"cache_bytes": 0}
    ),
    "NoShadow": Asked(door="other", ask=lambda client: client.get("/shadow")),
    "WrongMethod": Asked(door="other", ask=lambda client: client.delete("/predict")),
    "SlowBody": Asked(door="predict", ask=half_a_body, settings={"body_timeout_s": 0.1}),
    "TooLarge": Asked(door="predict", ask=post({"texts": ["a"] * 2000})),
    "TextTooLong": Asked(door="predict", ask=post({"text": "good " * 99, "truncate": False})),
    "WrongInput": Asked(door="classify", ask=lambda client: client.post("/v1/classify", json={})),
    "Overloaded": Asked(door="lines", ask=beside_a_stream, settings={"max_streams": 1}),
    "RateLimited": Asked(door="predict", ask=until_refused(post(GOOD)), key={"texts_per_s": 1}),
    "QuotaUsedUp": Asked(door="predict", ask=until_refused(post(GOOD)), key={"texts_per_day": 1}),
    "RedisUnreachable": Asked(
        door="other",
        ask=lambda client: client.delete("/cache"),
        settings={"redis_url": "redis://127.0.0.1:{port}/0"},
    ),
    "NotReady": Asked(door="gate", ask=until_refused(post(GOOD)), key={}, damaged_keys=True),
    "DeadlineExceeded": Asked(door="predict", ask=post(GOOD, x_deadline_ms="0.0001")),
    "EngineFailed": Asked(door="predict", ask=post({"text": "poison"})),
}
# Those that no request to a server without bugs can meet, and why.
NOT_MET = {
    "InternalError": "it is a bug; one is planted below",
    "UnknownModel": "over gRPC alone: over HTTP a model is a path; it is met below",
    "Conflict": "of a change of what is served; met in test_rollout",
    "WrongMedia": "the same",
    "PackageError": "a package that cannot be served is never asked",
    "PortInUse": "nobody asks a server that could not listen",
}


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A canonicaliser of the user's."""
    (tmp_path / "failing_form_of_a_test.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    yield "failing_form_of_a_test:form"
    sys.modules.pop("failing_form_of_a_test", None)


def leaves(kind: type[ServingError] = ServingError) -> list[type[ServingError]]:
    """What is raised."""
    inner = kind.__subclasses__()
    return [leaf for child in inner for leaf in leaves(child)] if inner else [kind]


def documented() -> dict[str, int]:
    """Type -> status, as the page says."""
    table = DOCUMENTED.read_text().partition("| status | type | meaning |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", table, re.MULTILINE)
    return {name: int(status) for status, name in rows}


def test_the_page_lists_what_the_code_has() -> None:
    """`docs/api.md` holds the very table that is made of the classes."""
    assert error_table() in DOCUMENTED.read_text()
    assert list(documented()) == [kind.__name__ for kind in request_errors()]


def test_every_error_is_met_here_or_has_its_reason() -> None:
    """None of the tree is forgotten, here or on the page."""
    ours = {kind.__name__ for kind in leaves() if kind.__module__ == errors.__name__}

    assert MET.keys() | NOT_MET.keys() == ours
    assert (
        MET.keys() | NOT_MET.keys() - {kind.__name__ for kind in errors.START_UP}
        == documented().keys()
    )
    assert {kind.__name__ for kind in errors.START_UP} < NOT_MET.keys()


def test_the_drawn_tree_is_the_tree() -> None:
    """Names, statuses and who is whose child stand in the drawing as they are in the code."""
    drawn: list[tuple[str, str, int]] = []
    above = ["ServingError"]
    for line in str(errors.__doc__).splitlines():
        if match := re.match(r"^((?:│   |    )*)[├└]── (\w+) +(\d+)  \S", line):
            depth = 1 + len(match[1]) // 4
            above[depth:] = [match[2]]
            drawn.append((match[2], above[depth - 1], int(match[3])))
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    there = {
        (kind.__name__, kind.__bases__[0].__name__, kind.status)
        for kind in kinds
        if issubclass(kind, ServingError) and kind is not ServingError
    }

    assert len(drawn) == len(there)
    assert set(drawn) == there


@pytest.mark.parametrize("name", MET)
def test_an_error_is_met_as_documented(
    name: str,
    make_package: MakePackage,
    listening: Listening,
    tmp_path: Path,
    own_code: str,
) -> None:
    """Status, the one body, Retry-After where it helps, and both counters, over a socket."""
    asked = MET[name]
    package = make_package(canonicalizer=own_code)
    (closed,) = free_ports(1)
    settings = {
        key: value.format(port=closed) if isinstance(value, str) else value
        for key, value in asked.settings.items()
    }
    keys, headers = tmp_path / "keys.json", {}
    if asked.key is not None:
        headers["x-api-key"] = create_key(keys, "web", **asked.key)[1]
        settings["keys"] = str(keys)
    with (
        listening(package, allow_code=own_code, **settings) as url,
        httpx.Client(base_url=url, headers=headers, trust_env=False) as client,
    ):
        sound = keys.read_bytes() if asked.damaged_keys else b""
        if asked.damaged_keys:
            keys.write_text("damaged")
        response = asked.ask(client)
        if asked.damaged_keys:
            keys.write_bytes(sound)
            wait_until_let_in(client)
        counted = client.get("/metrics").text

    check(name, response)
    status = response.status_code
    labels = f'door="{asked.door}",{{}}="{{}}"'
    assert count(counted, "miniml_refused_total", labels.format("type", name)) >= 1
    assert count(counted, "miniml_requests_total", labels.format("status", status)) >= 1


def check(name: str, response: httpx.Response) -> None:
    """Whether *response* is the error as the page and the contract have it."""
    body = json.loads(response.content)
    kind = next(kind for kind in request_errors() if kind.__name__ == name)

    assert response.status_code == documented()[name] == kind.status
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"type", "message", "hint"}
    assert body["error"]["type"] == name
    assert body["error"]["message"].endswith((".", ")"))
    if issubclass(kind, Unavailable):
        assert int(response.headers["retry-after"]) >= 1


def count(text: str, name: str, labels: str) -> float:
    """Of one counter."""
    match = re.search(rf"^{name}{{{labels}}} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def wait_until_let_in(client: httpx.Client) -> None:
    """A file of keys that was mended is read again, without a restart."""
    deadline_s = time.monotonic() + START_S
    while client.get("/info").status_code != 200:
        assert time.monotonic() < deadline_s


def test_another_model_is_met_as_documented(package: Package) -> None:
    """gRPC's code beside the status that is counted, and the type in the metadata."""
    told: dict[str, Any] = {}
    context: Any = SimpleNamespace(
        invocation_metadata=dict,
        peer=lambda: "unix:",
        set_code=lambda code: told.update(code=code),
        set_details=lambda details: told.update(details=details),
        set_trailing_metadata=told.update,
    )

    async def run() -> str:
        settings = ServeSettings(package="p")
        core = Core(package, Lanes(count=1, threads=1), settings)
        endpoint = build_endpoint(core, settings)
        await endpoint.rpc.call("ModelReady", pb.ModelReadyRequest(name="another"), context)
        transport = httpx.ASGITransport(app=endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            counted = (await client.get("/metrics")).text
        await core.close()
        return counted

    counted = asyncio.run(run())
    assert (told["code"], told["x-error-type"]) == (grpc.StatusCode.NOT_FOUND, "UnknownModel")
    assert count(counted, "miniml_refused_total", 'door="grpc",type="UnknownModel"') == 1
    status = documented()["UnknownModel"]
    assert count(counted, "miniml_requests_total", f'door="grpc",status="{status}"') == 1


def test_a_bug_is_told_as_one(package: Package) -> None:
    """A planted one: a 500 without its inside, counted, and the next request is answered."""

    async def run() -> tuple[httpx.Response, httpx.Response, str]:
        settings = ServeSettings(package="p")
        core = Core(package, Lanes(count=1, threads=1), settings)
        endpoint = build_endpoint(core, settings)
        transport = httpx.ASGITransport(app=endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            reader, core._reader = core._reader, None  # type: ignore[assignment]
            failed = await client.post("/predict", json=GOOD)
            core._reader = reader
            after = await client.post("/predict", json=GOOD)
            counted = (await client.get("/metrics")).text
        await core.close()
        return failed, after, counted

    failed, after, counted = asyncio.run(run())
    check("InternalError", failed)
    assert "NoneType" not in failed.text
    assert after.status_code == 200
    assert count(counted, "miniml_refused_total", 'door="predict",type="InternalError"') == 1


def test_a_bug_beside_the_doors_is_told_as_one(package: Package) -> None:
    """The pages, too, answer with the one body, and are counted."""

    async def run() -> tuple[httpx.Response, str]:
        settings = ServeSettings(package="p")
        core = Core(package, Lanes(count=1, threads=1), settings)
        endpoint = build_endpoint(core, settings)
        transport = httpx.ASGITransport(app=endpoint, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            cache, core._cache = core._cache, core  # type: ignore[assignment]
            failed = await client.get("/cache")
            core._cache = cache
            counted = (await client.get("/metrics")).text
        await core.close()
        return failed, counted

    failed, counted = asyncio.run(run())
    check("InternalError", failed)
    assert count(counted, "miniml_refused_total", 'door="other",type="InternalError"') == 1


def test_the_contract_lists_every_error(package: Package, listening: Listening) -> None:
    """`/openapi.json`, of which `/docs` is filled, names each at its status."""
    with listening(package) as url:
        document = httpx.get(f"{url}/openapi.json").json()
    responses = document["paths"]["/predict"]["post"]["responses"]

    for name, status in documented().items():
        assert f"`{name}`" in responses[str(status)]["description"]
    assert not any(f"`{name}`" in str(responses) for name in ("PackageError", "PortInUse"))
