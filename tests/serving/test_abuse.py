"""Laws under abuse: whatever comes over the socket, others are answered, and nothing piles up."""

from __future__ import annotations

import gc
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
MEGABYTE = 2**20
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


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@pytest.mark.parametrize("name", BAD)
def test_no_bytes_make_the_server_fail(package: Package, listening: Listening, name: str) -> None:
    """Never a 5xx, never silence for others: after it, and after it half sent, answers are right."""
    with listening(package) as url:
        wanted = httpx.post(f"{url}/predict", content=GOOD).json()
        answer = send(address_of(url), BAD[name], early=False)
        send(address_of(url), BAD[name], early=True)
        send(address_of(url), BAD[name][: len(BAD[name]) // 2], early=True)

        assert b"HTTP/1.1 5" not in answer
        assert httpx.post(f"{url}/predict", content=GOOD).json() == wanted


def test_a_hundred_megabytes_are_not_kept(package: Package, listening: Listening) -> None:
    """A body beyond the limit is thrown away as it comes, and its sender reads why."""

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            grown.append(psutil.Process().memory_info().rss - before)
            yield b"a" * MEGABYTE

    grown: list[int] = []
    with listening(package) as url:
        httpx.post(f"{url}/predict", content=b"a" * 10 * MEGABYTE)  # what is made once, is made
        before = psutil.Process().memory_info().rss
        assert httpx.post(f"{url}/predict", content=pieces()).status_code == 413
        assert httpx.post(f"{url}/predict", content=GOOD).status_code == 200

    assert max(grown) < 30 * MEGABYTE


def test_ten_thousand_bad_requests_leave_nothing_behind(
    package: Package, listening: Listening
) -> None:
    """Memory is back within 10 MB, and good requests meanwhile get the same answer every time."""
    names = sorted(BAD)
    chance = random.Random(0)
    wrong: list[object] = []
    over = threading.Event()

    def ask(url: str, wanted: object) -> None:
        with httpx.Client(base_url=url) as client:
            while not over.is_set():
                if (given := client.post("/predict", content=GOOD).json()) != wanted:
                    wrong.append(given)

    def abuse(address: tuple[str, int], count: int) -> None:
        for _ in range(count):
            content = BAD[chance.choice(names)]
            send(address, content[: chance.randint(1, len(content))], early=True)

    def memory() -> int:
        gc.collect()
        return psutil.Process().memory_info().rss

    with listening(package) as url:
        wanted = httpx.post(f"{url}/predict", content=GOOD).json()
        good = threading.Thread(target=ask, args=(url, wanted))
        good.start()
        try:
            abuse(address_of(url), 1_000)  # what is made once, is made
            before = memory()
            abuse(address_of(url), 10_000)
            after = memory()
        finally:
            over.set()
            good.join()

    assert wrong == []
    assert after - before < 10 * MEGABYTE
