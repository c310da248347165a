"""Laws of the request log: a whole line for each request, no text and no key, and no request waits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.access.keys import create_key
from serving.core import Core
from serving.lanes import Lanes
from serving.observing.log_file import FileSink, Unwritable, open_sink
from serving.observing.log_relay import relayed
from serving.options import ServeOptions
from serving.package import Package
from serving.protocols.asgi import Message, Send
from serving.protocols.leaving import Receive
from serving.protocols.surface import build_endpoint
from serving.server import serve
from serving.settings import ServeSettings
from serving.shortcut import Shortcut

Listening = Callable[..., AbstractContextManager[str]]
MARKER = "marker"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NDJSON = {"content-type": "application/x-ndjson"}


def logged(path: Path) -> list[dict[str, Any]]:
    """Every line, of which each must be whole."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines_counted(url: str) -> dict[str, float]:
    """Lines written and dropped, as the server counts them."""
    metrics = httpx.get(f"{url}/metrics").text
    numbers = re.findall(r"^miniml_request_log_(\w+)_total (\S+)$", metrics, re.MULTILINE)
    return {name: float(number) for name, number in numbers}


def test_every_request_leaves_a_line(package: Package, tmp_path: Path) -> None:
    """Answers, refusals and each line of a stream; with the id and the milliseconds that the caller saw."""
    path = tmp_path / "requests.jsonl"
    settings = ServeSettings(package="p", request_log=path)
    lines = "\n".join([json.dumps({"text": f"{MARKER} good"}), "{", json.dumps({"text": "bad"})])
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("predict", "/predict", {"json": {"texts": [f"{MARKER} good", "bad"]}}),
        ("predict", "/predict", {"json": {"texts": [f"{MARKER} good", "bad"]}}),
        ("predict", "/predict", {"json": {"text": ""}}),
        ("hub", "/", {"json": {"inputs": "good"}, "headers": {"x-request-id": "mine"}}),
        ("classify", "/v1/classify", {"content": f'{{"{MARKER}"'}),
        ("open_inference", "/v2/models/tiny/infer", {"json": {"inputs": []}}),
        ("lines", "/predict", {"content": lines, "headers": NDJSON}),
    ]

    async def nobody(_scope: Message, _receive: Receive, _send: Send) -> None:
        raise AssertionError

    async def run() -> list[httpx.Response]:
        core = Core(package, Lanes(count=1, threads=1), settings, replica="one")
        endpoint = build_endpoint(core, settings, replica="one")
        transport = httpx.ASGITransport(app=Shortcut(nobody, endpoint=lambda: endpoint))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            responses = [await client.post(path, **said) for _, path, said in calls]
        await core.close()
        await endpoint.close()
        return responses

    responses = asyncio.run(run())
    found = logged(path)

    ids = [response.headers["x-request-id"] for response in responses]
    assert [line["request_id"] for line in found] == [*ids, ids[-1], ids[-1]]
    assert [line["door"] for line in found] == [*(door for door, *_ in calls), "lines", "lines"]
    assert {line["line"]: line["status"] for line in found[-3:]} == {1: 200, 2: 400, 3: 200}
    for line, response in zip(found, responses[:-1], strict=False):
        assert TIME.fullmatch(line["time"])
        assert line["replica"] == "one"
        assert line["status"] == response.status_code
        if response.is_success:
            assert line["level"] == "INFO"
            for stage in ("tokenize", "queue", "infer"):
                assert line[f"{stage}_ms"] == float(response.headers[f"x-{stage}-ms"])
                assert line[f"{stage}_ms"] <= line["total_ms"] or line["cached"]
        else:
            assert line["level"] == "WARNING"
            assert line["error"] == response.json()["error"]["type"]
    assert [(line["texts"], line["cached"]) for line in found[:2]] == [(2, 0), (2, 2)]
    assert MARKER not in path.read_text()


@pytest.mark.parametrize("with_texts", [True, False])
def test_texts_are_logged_only_when_asked(
    package: Package, listening: Listening, tmp_path: Path, *, with_texts: bool
) -> None:
    """With --log-texts each line holds its texts, a refused one's too; without, none of them is there."""
    path = tmp_path / "requests.jsonl"
    texts = [f"{MARKER} good", 'quoted " and\nbroken']
    with listening(package, request_log=path, log_texts=with_texts) as url:
        httpx.post(f"{url}/predict", json={"texts": texts})
        late = {"x-deadline-ms": "0.000001", "cache-control": "no-cache"}
        httpx.post(f"{url}/predict", json={"texts": texts}, headers=late)
    found = logged(path)

    assert [line["status"] for line in found] == [200, 504]
    assert [line["texts"] for line in found] == [2, 2]
    assert [line.get("text") for line in found] == ([texts, texts] if with_texts else [None, None])
    assert (MARKER in path.read_text()) == with_texts


def test_a_key_is_named_and_never_shown(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Whose request it was stands there, and that one had no key; nothing of a key does."""
    _, secret = create_key(tmp_path / "keys.json", "web")
    path = tmp_path / "requests.jsonl"
    with listening(package, request_log=path, keys=str(tmp_path / "keys.json")) as url:
        for given in (secret, secret[:-1]):
            asked = {"authorization": f"Bearer {given}"}
            httpx.post(f"{url}/predict", json={"text": "good"}, headers=asked)
    found = [(line["status"], line["door"], line.get("key")) for line in logged(path)]

    assert found == [(200, "predict", "web"), (401, "gate", None)]
    assert not any(part in path.read_text() for part in secret.split("_", 2)[1:])


def test_a_caller_who_left_is_logged(
    package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Who hangs up before the answer is a line too, with nginx's status for it, and its trace."""
    path = tmp_path / "requests.jsonl"
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ntraceparent: {TRACEPARENT}\r\n"
    with listening(package, request_log=path) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address) as caller:
            caller.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        deadline_s = time.monotonic() + 60
        while not lines_counted(url)["written"]:
            assert time.monotonic() < deadline_s
    (line,) = logged(path)

    assert (line["status"], line["error"]) == (499, "CallerLeft")
    assert line["trace_id"] == TRACEPARENT.split("-")[1]


def test_writers_share_a_file_and_lines_stay_whole(tmp_path: Path) -> None:
    """Two processes append to one file at once, short lines and long ones, and none is torn or lost."""
    path = tmp_path / "requests.jsonl"
    code = (
        "import sys; from pathlib import Path; from serving.observing.log_file import open_sink\n"
        "sink = open_sink(Path(sys.argv[1]))\n"
        "for n in range(400): sink.write(sys.argv[2].encode() * (n * 97 % 30_000 + 1) + b'\\n')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = path.read_text().splitlines()

    assert all(len(set(line)) == 1 for line in lines)
    for letter in "ab":
        sizes = [len(line) for line in lines if line[0] == letter]
        assert sizes == [n * 97 % 30_000 + 1 for n in range(400)]


def test_a_rotated_file_is_begun_anew(tmp_path: Path) -> None:
    """After a rename lines go to a new file of the old name; the old one keeps what it has."""
    path, old = tmp_path / "requests.jsonl", tmp_path / "requests.jsonl.1"
    sink = FileSink(path)
    sink.write(b"one\n")
    path.rename(old)
    sink.write(b"two\n")
    path.unlink()
    sink.write(b"three\n")
    sink.close()

    assert (old.read_text(), path.read_text()) == ("one\n", "three\n")


def test_a_full_disk_tears_one_line_at_most(tmp_path: Path) -> None:
    """What did not fit is said; once there is room again, lines are whole from the next one on."""
    path = tmp_path / "requests.jsonl"
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from serving.observing.log_file import open_sink\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (25, limits[1]))  # as a disk: no more bytes\n"
        "sink = open_sink(Path(sys.argv[1]))\n"
        "for n in range(5):\n"
        "    try: sink.write(b'%d' % n * 9 + b'\\n')\n"
        "    except OSError as error: print(n, error.strerror)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limits)\n"
        "sink.write(b'last\\n')\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert told.splitlines() == [f"{n} File too large" for n in (2, 3, 4)]
    assert path.read_text().splitlines() == ["0" * 9, "1" * 9, "2" * 5, "last"]


def test_an_unwritable_log_costs_lines_and_no_request(
    package: Package, listening: Listening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are answered, lines dropped, counted and spoken of once; later there are lines again."""
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "requests.jsonl"
    body = {"text": "good"}
    with listening(package, request_log=path, cache_bytes=0) as url:
        asked = 1
        shutil.rmtree(folder)
        while "takes no lines" not in caplog.text or asked < 20:
            assert httpx.post(f"{url}/predict", json=body).is_success
            asked += 1
        folder.mkdir()
        httpx.post(f"{url}/predict", headers={"x-request-id": "last"}, json=body)
        deadline_s = time.monotonic() + 60
        while sum((counted := lines_counted(url)).values()) < asked:
            assert time.monotonic() < deadline_s
    said = [record.getMessage() for record in caplog.records if "lines" in record.getMessage()]

    assert logged(path)[-1]["request_id"] == "last"
    assert counted["dropped"] >= 1
    assert sum(counted.values()) == asked
    assert len(said) == 2
    assert "takes no lines" in said[0]
    assert "takes lines again" in said[1]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("nowhere/requests.jsonl", "No such file or directory"),
        (".", "it is no file"),
        ("pipe", "it is no file"),
    ],
)
def test_what_cannot_be_written_is_refused_at_the_start(
    package: Package, tmp_path: Path, where: str, why: str
) -> None:
    """`miniml serve` says so in one sentence, before anything is started."""
    os.mkfifo(tmp_path / "pipe")
    options = ServeOptions(
        package=str(package.folder), port=8123, request_log=tmp_path / where, haproxy=False
    )

    with pytest.raises(Unwritable, match=rf"cannot be written \({why}\)"):
        serve(options)


def test_standard_output_is_miniml_serves_alone() -> None:
    """A replica that is told `-` says so, rather than make a file of that name."""
    with pytest.raises(Unwritable, match="output of miniml serve alone"):
        open_sink(Path("-"))


def test_lines_are_relayed_whole(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """What several writers send comes out on standard output, no line mixed with another, nothing lost."""

    def write(letter: bytes) -> None:
        sink = open_sink(path)
        for n in range(200):
            sink.write(letter * (n * 97 % 9000 + 1) + b"\n" + letter + b"\n")
        sink.close()

    with relayed() as path:
        writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    lines = capfdbinary.readouterr().out.splitlines()

    assert not path.exists()
    assert all(len(set(line)) == 1 for line in lines)
    for letter in b"ab":
        sizes = [len(line) for line in lines if line[0] == letter]
        assert sizes == [size for n in range(200) for size in (n * 97 % 9000 + 1, 1)]
