"""Laws of who may come in: no key no answer, quotas to the text, and probes for everybody."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.access.keys import Key, create_key, revoke_key
from serving.access.metering import Meter
from serving.client import Client, RemoteError
from serving.errors import QuotaUsedUp, RateLimited, TooLarge
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
NDJSON = {"content-type": "application/x-ndjson"}


def a_key(**limits: Any) -> Key:
    """With these limits."""
    return Key(name="web", id="abc", digest="d" * 64, created_at="2026-01-01", **limits)


def bearer(secret: str) -> dict[str, str]:
    """The header."""
    return {"authorization": f"Bearer {secret}"}


def test_every_door_is_closed_without_a_key(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """401 and how to send one, at every path but the probes and the pages; with the key, answers."""
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "web")
    open_paths = ["/healthz", "/readyz", "/health", "/v2/health/ready", "/docs", "/openapi.json"]
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/predict", {"text": "good"}),
        ("POST", "/", {"inputs": "good"}),
        ("POST", "/v1/classify", {"input": "good"}),
        ("GET", "/info", None),
        ("GET", "/cache", None),
        ("GET", "/v2/models/tiny", None),
    ]
    with listening(package, keys=str(file)) as url, httpx.Client(base_url=url) as client:
        assert [client.get(path).status_code for path in open_paths] == [200] * len(open_paths)
        for method, path, body in asked:
            closed = client.request(method, path, json=body)
            assert (closed.status_code, closed.headers["www-authenticate"]) == (401, "Bearer")
            assert closed.json()["error"]["type"] == "Unauthenticated"
            wrong = client.request(method, path, json=body, headers=bearer(secret[:-1]))
            assert wrong.status_code == 401
            for headers in (bearer(secret), {"x-api-key": secret}):
                right = client.request(method, path, json=body, headers=headers)
                assert right.status_code == 200
        with Client(url, api_key=secret) as ours, Client(url, tries=1) as nobody:
            assert ours.predict("good")["label"]
            with pytest.raises(RemoteError, match="key"):
                nobody.predict("good")


def test_only_an_admin_changes_the_server(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Another key may look, but not clear."""
    file = tmp_path / "keys.json"
    (_, web), (_, admin) = create_key(file, "web"), create_key(file, "admin", admin=True)
    with listening(package, keys=str(file)) as url:
        codes = [
            httpx.delete(f"{url}/cache", headers=bearer(secret)).status_code
            for secret in (web, admin)
        ]

    assert codes == [403, 200]


def test_a_quota_counts_texts_wherever_they_come_in(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Lists, lines and single texts all count; what is refused does not; Retry-After says when."""
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "web", texts_per_day=10)
    with listening(package, keys=str(file)) as url:
        client = httpx.Client(base_url=url, headers=bearer(secret))
        assert client.post("/predict", json={"texts": ["good"] * 4}).status_code == 200
        lines = client.post("/predict", content='{"text": "good"}\n' * 3, headers=NDJSON)
        assert all("label" in json.loads(line) for line in lines.text.splitlines())
        over = client.post("/predict", json={"texts": ["good"] * 4})
        assert (over.status_code, over.json()["error"]["type"]) == (429, "QuotaUsedUp")
        assert 1 <= int(over.headers["retry-after"]) <= 86_400
        assert client.post("/", json={"inputs": ["good"] * 3}).status_code == 200
        assert client.post("/predict", json={"text": "good"}).status_code == 429


@pytest.mark.parametrize("shared", [False, True])
def test_a_quota_is_exact_among_fifty(shared: bool, request: pytest.FixtureRequest) -> None:
    """Fifty callers at once, of two servers where they share Redis: as many pass as may."""
    url = request.getfixturevalue("redis_server").url if shared else None
    key = a_key(texts_per_day=103)

    async def caller(meter: Meter) -> int:
        passed = 0
        for _ in range(4):
            try:
                await meter.take(key, 1)
                passed += 1
            except QuotaUsedUp:
                pass
        return passed

    async def run() -> int:
        meters = [Meter(url), Meter(url)] if shared else [Meter()]
        callers = [caller(meters[number % len(meters)]) for number in range(50)]
        return sum(await asyncio.gather(*callers))

    assert asyncio.run(run()) == 103


def test_a_quota_is_exact_among_fifty_clients(
    package: Package, listening: Listening, tmp_path: Path, redis_server: Any
) -> None:
    """Of two servers that share Redis, over sockets: as many texts pass as may, not one more."""
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "web", texts_per_day=103)
    shared = {"keys": str(file), "redis_url": redis_server.url}

    async def caller(url: str) -> list[tuple[int, int]]:
        async with httpx.AsyncClient(base_url=url, headers=bearer(secret), timeout=60) as client:
            bodies = [{"texts": ["good"] * count} for count in (1, 2, 1)]
            answers = [await client.post("/predict", json=body) for body in bodies]
        texts = [len(body["texts"]) for body in bodies]
        return list(zip((answer.status_code for answer in answers), texts, strict=True))

    async def ask(*urls: str) -> list[tuple[int, int]]:
        told = await asyncio.gather(*(caller(url) for url in urls * 25))
        return [one for each in told for one in each]

    with listening(package, **shared) as one, listening(package, **shared) as other:
        told = asyncio.run(ask(one, other))

    assert sum(texts for status, texts in told if status == 200) == 103
    assert {status for status, _ in told} == {200, 429}


def test_a_revoked_key_stops_at_every_server(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """All that read the file refuse it, without a restart; the other key goes on."""
    file = tmp_path / "keys.json"
    (_, web), (_, app) = create_key(file, "web"), create_key(file, "app")
    with listening(package, keys=str(file)) as one, listening(package, keys=str(file)) as other:

        def codes(secret: str) -> list[int]:
            urls = (f"{one}/info", f"{other}/info")
            return [httpx.get(url, headers=bearer(secret)).status_code for url in urls]

        assert codes(web) == [200, 200]
        revoke_key(file, "web")
        deadline_s = time.monotonic() + 20  # how soon is said of a clock, in test_keys.py
        while codes(web) != [401, 401]:
            assert time.monotonic() < deadline_s
        assert codes(app) == [200, 200]


def test_limits_outlive_their_redis(redis_server: Any) -> None:
    """Gone or hanging, it costs its budget and no request; each meter then counts for itself."""
    key = a_key(texts_per_day=10)

    async def passed(meter: Meter, times: int) -> int:
        count = 0
        for _ in range(times):
            with suppress(QuotaUsedUp):
                await meter.take(key, 1)
                count += 1
        return count

    async def run() -> None:
        one, other = Meter(redis_server.url), Meter(redis_server.url)
        assert (await passed(one, 4), await passed(other, 4)) == (4, 4)
        redis_server.process.send_signal(signal.SIGSTOP)
        assert await passed(one, 20) == 10
        redis_server.stop(kill=True)
        assert await passed(other, 20) == 10
        redis_server.start()
        # Within the pause of the breaker; Redis, which kept nothing, begins anew.
        while not redis_server.client().keys("LIMITS*"):
            await passed(one, 1)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_rate_is_kept_and_a_call_beyond_it_can_never_pass() -> None:
    """As many texts as a second has; a call of more is told to come in parts."""

    async def run() -> list[bool]:
        meter, key, passed = Meter(), a_key(texts_per_s=1000), []
        with pytest.raises(TooLarge, match="1001 texts"):
            await meter.take(key, 1001)
        for _ in range(5):
            try:
                await meter.take(key, 400)
                passed.append(True)
            except RateLimited:
                passed.append(False)
        return passed

    passed = asyncio.run(run())
    assert passed[0]
    assert not all(passed)


def test_lines_wait_for_their_keys_next_second(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """A stream is slowed down, not refused: every line gets its answer."""
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "web", texts_per_s=20)
    content = "".join(json.dumps({"text": f"good {n}"}) + "\n" for n in range(50))
    with listening(package, keys=str(file)) as url:
        lines = httpx.post(
            f"{url}/predict", content=content, headers=NDJSON | bearer(secret), timeout=60
        )

    assert ["label" in json.loads(line) for line in lines.text.splitlines()] == [True] * 50


def test_a_body_that_does_not_come_is_not_waited_for(
    package: Package, listening: Listening
) -> None:
    """A caller that sends a byte and no more gets a 408, and holds nothing any longer."""
    with listening(package, body_timeout_s=0.2) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(b"POST /predict HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{")
            answer = b""
            while b"SlowBody" not in answer and (piece := line.recv(4096)):
                answer += piece

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"SlowBody" in answer


def test_streams_are_bounded(package: Package, listening: Listening) -> None:
    """As many as may be, the next is refused at once, and a place that is left is free again."""
    with listening(package, max_streams=1) as url:
        host, port = url.removeprefix("http://").split(":")
        head = "POST /predict HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n"
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(f"{head}content-type: application/jsonl\r\n\r\n".encode())
            assert b" 200 " in line.recv(4096)
            refused = httpx.post(f"{url}/predict", content="", headers=NDJSON)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        deadline_s = time.monotonic() + 20
        while httpx.post(f"{url}/predict", content="", headers=NDJSON).status_code != 200:
            assert time.monotonic() < deadline_s
