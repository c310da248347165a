"""Laws under abuse: whatever comes over the socket, others are answered, and nothing piles up."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import httpx
import psutil

from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
MEGABYTE = 2**20
GOOD = b'{"text": "good"}'
Send = Callable[..., bytes]


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def test_no_bytes_make_the_server_fail(
    package: Package, listening: Listening, bad_request: bytes, send_raw: Send
) -> None:
    """Never a 5xx, never silence for others: after it, and after it half sent, answers are right."""
    with listening(package) as url:
        wanted = httpx.post(f"{url}/predict", content=GOOD).json()
        answer = send_raw(address_of(url), bad_request, early=False)
        send_raw(address_of(url), bad_request, early=True)
        send_raw(address_of(url), bad_request[: len(bad_request) // 2], early=True)

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
    package: Package, listening: Listening, bad_requests: dict[str, bytes], send_raw: Send
) -> None:
    """Memory is back within 10 MB, and good requests meanwhile get the same answer every time."""
    names = sorted(bad_requests)
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
            content = bad_requests[chance.choice(names)]
            send_raw(address, content[: chance.randint(1, len(content))], early=True)

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
