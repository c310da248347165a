"""Laws of newline-delimited JSON: a line in, a line out, in order, whatever the lines hold."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
LINES = {"content-type": "application/x-ndjson"}


def ask(url: str, content: bytes | Iterator[bytes], **headers: str) -> list[Any]:
    """Every line of the answer."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        response = client.post(f"{url}/predict", content=content, headers=LINES | headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == LINES["content-type"]
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_thousand_lines_come_back_in_order(package: Package, listening: Listening) -> None:
    """Each line's answer is that of its text alone, though the queue is far too short for all."""
    texts = [f"{'good' if n % 3 else 'bad'} soup " * (1 + n % 9) for n in range(1000)]
    content = "\n".join(json.dumps({"text": text, "logits": True}) for text in texts).encode()
    with listening(package, max_queue_ms=0.5, cache_bytes=0) as url:
        answers = ask(url, content)
        singles = {
            text: httpx.post(f"{url}/predict", json={"text": text, "logits": True}).json()
            for text in set(texts)
        }

    assert answers == [singles[text] for text in texts]


def test_what_cannot_be_answered_is_answered_by_its_error(
    package: Package, listening: Listening
) -> None:
    """In its place, with the one error body; lines around it are not touched; blank ones do not count."""
    lines = [
        b'{"text": "good"}',
        b"{",
        b"",
        b'{"texts": ["good", "bad"]}',
        b"  ",
        b'{"text": ""}',
        b'{"text": "good", "deadline_ms": 0.000001}',
        b'{"text": "good"}',
    ]
    with listening(package, cache_bytes=0) as url:
        answers = ask(url, b"\r\n".join(lines))

    kinds = [a["error"]["type"] if isinstance(a, dict) and "error" in a else None for a in answers]
    assert kinds == [None, "MalformedBody", None, "WrongInput", "DeadlineExceeded", None]
    assert answers[0] == answers[-1] == answers[2][0]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_may_come_in_any_pieces(package: Package, listening: Listening, size: int) -> None:
    """Wherever the network cuts them, in a character too; the last may have no newline."""
    content = '{"text": "gööd"}\n{"text": "好 soup"}\n{"text": "bad"}'.encode()
    pieces = (content[start : start + size] for start in range(0, len(content), size))
    with listening(package) as url:
        assert ask(url, pieces) == ask(url, content + b"\n")
        assert ask(url, b"") == []


def test_a_line_too_long_ends_them(package: Package, listening: Listening) -> None:
    """Lines before it are answered, it is answered by its error, and nothing is read after it."""
    content = b'{"text": "good"}\n{"text": "' + b"a" * 4000 + b'"}\n{"text": "bad"}\n'
    with listening(package, max_body_bytes=1000) as url:
        answers = ask(url, content)

    assert ["error" in answer for answer in answers][:2] == [False, True]
    assert answers[1]["error"]["type"] == "TooLarge"


def test_answers_come_before_the_end(package: Package, listening: Listening) -> None:
    """Who sends a line and waits gets its answer: a stream, not a batch."""
    with listening(package) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as line:
            head = "POST /predict HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n"
            line.sendall(f"{head}content-type: application/jsonl\r\n\r\n".encode())
            for _ in range(3):
                body = b'{"text": "good"}\n'
                line.sendall(b"%x\r\n%s\r\n" % (len(body), body))
                got = b""
                while b'"label"' not in got:
                    got += line.recv(4096)
            line.sendall(b"0\r\n\r\n")


def test_who_leaves_leaves_no_work_behind(package: Package, listening: Listening) -> None:
    """A stream that its caller gives up ends; the server goes on for others."""
    with listening(package, cache_bytes=0) as url:
        parts = urlsplit(url)
        for _ in range(5):
            with socket.create_connection((parts.hostname, parts.port), timeout=20) as line:
                head = "POST /predict HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n"
                line.sendall(f"{head}content-type: application/jsonl\r\n\r\n".encode())
                line.sendall(b'{"text": "good soup"}\n' * 500)
        deadline_s = time.monotonic() + 20
        while httpx.get(f"{url}/info").json()["now"]["queued_ms"] > 0:
            assert time.monotonic() < deadline_s
        assert ask(url, b'{"text": "good"}')[0]["label"]
