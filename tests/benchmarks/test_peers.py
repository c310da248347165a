"""The peers answer as their checkpoint does, start and stop cleanly, and say why they do not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import (
    PeerDisagrees,
    PeerFailed,
    PeerUnsuited,
    PlainModelFailed,
    PortTaken,
)
from benchmarks.options import PeersOptions
from benchmarks.peers.apart import APART
from benchmarks.peers.assets import Assets, fp32_labels, prepare
from benchmarks.peers.checking import check_labels
from benchmarks.peers.contract import PeerSettings
from benchmarks.peers.line_up import (
    HERE,
    NAMES,
    OURS,
    PLAIN_FASTAPI,
    PROTOTYPE,
    RAY_BATCH,
    check_names,
    line_up,
)
from benchmarks.peers.measuring import PeerLoad, measure
from benchmarks.peers.peer import Peer
from benchmarks.peers.run import turns
from benchmarks.peers.running import running
from benchmarks.plain import MODEL, quantize_plain
from benchmarks.processes import process_tree
from benchmarks.wire import Body
from serving.environment import free_ports
from serving.package import Package, PackageConfig

BURNT_MS = 40.0  # by a request; the kernel counts in ticks of 10


def free_port() -> int:
    """One that nobody listens on now."""
    (port,) = free_ports(1)
    return port


def scripted(code: str) -> Peer:
    """A peer that is a few lines of Python."""
    return Peer(name="scripted", about="", command=(sys.executable, "-c", code))


@contextmanager
def always(answer: object) -> Iterator[str]:
    """The URL of a server that gives every text the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_fp32_labels_are_the_pipelines(assets: Assets, sure: list[tuple[str, str]]) -> None:
    """The yardstick by ONNX and `tokenizers` is what transformers answers; labels differ by text."""
    assert fp32_labels(assets, [text for text, _ in sure]) == [label for _, label in sure]
    assert len({label for _, label in sure}) > 1
    assert max(len(text.split()) for text, _ in sure) > assets.max_length


@pytest.mark.parametrize("name", HERE[1:])
def test_a_peer_answers_as_its_checkpoint(
    name: str, assets: Assets, sure: list[tuple[str, str]], tmp_path: Path
) -> None:
    """The label of fp32 wherever fp32 is sure, in company, long texts cut; then the port is free.

    Where int8 texts share a batch, they share their scales, and whoever comes along may move a label: there most
    are enough in company, as `check_labels` says (seen once: 12 of 13), and all of them alone. All that it started is in its tree, Ray's own
    processes too: what it costs is counted whole.
    """
    port = free_port()
    (peer,) = (p for p in line_up(assets, cores=2, port=port) if p.name == name)
    peer = replace(peer, environment={**peer.environment, "STARTED_BY": str(tmp_path)})
    texts, labels = [text for text, _ in sure], [label for _, label in sure]

    with running(peer, port=port, logs=tmp_path) as server:
        agreement = check_labels(name, server.url, texts, labels)
        for text, label in sure:
            check_labels(name, server.url, [text], [label])  # raises where it is another
        answer = httpx.post(f"{server.url}/predict", json={"text": texts[0]}, timeout=60).json()
        started = those_told(f"STARTED_BY={tmp_path}")
        tree = {stat.pid for stat in process_tree(server.pid)}

    assert agreement.asked == len(sure)
    assert agreement.agreed == len(sure) or name == RAY_BATCH
    assert set(answer) == {"label", "score"}
    assert 0.5 < answer["score"] <= 1
    assert started <= tree
    assert len(started) > (name == RAY_BATCH) + (name == PLAIN_FASTAPI)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def those_told(variable: str) -> set[int]:
    """The processes with this in their environment, whoever their parent is now."""
    found = set()
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it ended, or is somebody else's
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def test_what_a_load_costs_is_of_all_processes(tmp_path: Path) -> None:
    """A worker's CPU time counts as its server's own: as much as each request is known to burn."""
    port = free_port()
    worker = (
        "import http.server as h, time\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "  protocol_version = 'HTTP/1.1'\n"
        "  def log_message(self, *_): pass\n"
        "  def do_POST(self):\n"
        "    self.rfile.read(int(self.headers['content-length']))\n"
        f"    end_s = time.process_time() + {BURNT_MS / 1e3}\n"
        "    while time.process_time() < end_s: pass\n"
        "    self.send_response(200)\n"
        "    self.send_header('content-length', '0')\n"
        "    self.end_headers()\n"
        f"h.ThreadingHTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    load = PeerLoad(
        peer="scripted",
        workload="queries",
        round=0,
        bodies=[Body(content=b"{}", texts=1)],
        goal_ms=1.0,
    )
    options = PeersOptions(connections=1, warmup_s=0.0, duration_s=1.0, search_steps=0)

    with running(scripted(code), port=port, logs=tmp_path) as server:
        (run,) = measure(server, load, options)
        own_s = process_tree(server.pid)[0].cpu_s

    assert run.cost is not None
    assert run.server_cpu_ms_per_request == pytest.approx(BURNT_MS, rel=0.3)
    assert run.cost.cpu_s > 2 * own_s
    assert run.cost.pss_bytes > 2 * 2**20


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    """One sentence, with the last line of its log."""
    peer = scripted("raise SystemExit('first\\nthe model is not there')")

    with (
        pytest.raises(PeerFailed, match=r"scripted did not start: the model is not there$"),
        running(peer, port=free_port(), logs=tmp_path),
    ):
        pytest.fail("it is running")


def test_a_peer_that_tidies_up_still_says_why(tmp_path: Path) -> None:
    """The exception counts, not what servers print while they stop, nor its colours."""
    peer = scripted(
        "import sys\n"
        "try: open('no-such-model')\n"
        "except OSError as error:\n"
        "  print(f'\\x1b[31mFileNotFoundError: {error}\\x1b[0m')\n"
        "print('INFO: shutdown complete')\n"
        "sys.exit(1)"
    )

    with (
        pytest.raises(PeerFailed, match=r"not start: FileNotFoundError: .* 'no-such-model'$"),
        running(peer, port=free_port(), logs=tmp_path),
    ):
        pytest.fail("it is running")


@pytest.mark.parametrize("noticed", [False, True])
def test_a_peer_that_stops_under_load_says_why(tmp_path: Path, *, noticed: bool) -> None:
    """Whether or not the client noticed: the server's last word is worth more than "no answer"."""
    port = free_port()
    code = (
        "import http.server as h, os, sys\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "  def do_POST(self):\n"
        "    self.send_response(200); self.end_headers()\n"
        "    self.wfile.write(str(os.getpid()).encode())\n"
        f"s = h.HTTPServer(('127.0.0.1', {port}), H)\n"
        "s.handle_request(); s.handle_request()\n"
        "sys.exit('out of memory')"
    )

    def load() -> None:
        with running(scripted(code), port=port, logs=tmp_path) as server:
            wait_ended(int(httpx.post(f"{server.url}/predict", json={"text": "one more"}).text))
            if noticed:
                raise PeerFailed("answered nothing")

    with pytest.raises(PeerFailed, match="scripted stopped under load: out of memory"):
        load()


def wait_ended(pid: int) -> None:
    """Return when a child has ended, without taking its exit status from who waits for it."""
    while "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
        pass


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """Nothing is started where somebody else would answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(PortTaken, match=f"Port {port} cannot be used"),
            running(scripted("pass"), port=port, logs=tmp_path),
        ):
            pytest.fail("it is running")


def test_another_model_is_refused() -> None:
    """Four labels of five are int8; fewer are another model, and its speed is not measured."""
    with always({"label": "a"}) as url:
        assert check_labels("it", url, ["text"] * 10, ["a"] * 8 + ["b"] * 2).agreed == 8
        with pytest.raises(PeerDisagrees, match="7 of 10 texts"):
            check_labels("it", url, ["text"] * 10, ["a"] * 7 + ["b"] * 3)


def test_a_server_of_other_answers_is_refused() -> None:
    """An answer without a label is one sentence, not a traceback."""
    with always(None) as url, pytest.raises(PeerFailed, match="no label"):
        check_labels("it", url, ["text"], ["a"])


def test_an_unknown_peer_is_refused() -> None:
    """By name, with the names there are."""
    check_names(NAMES)
    with pytest.raises(PeerUnsuited, match="no peer 'nobody'"):
        check_names(["nobody"])


def test_ours_is_always_there(assets: Assets) -> None:
    """Whichever peers are chosen, ours is what they are compared with."""
    chosen = line_up(assets, cores=2, port=1, names=["ray-batch"])

    assert [peer.name for peer in chosen] == [OURS, "ray-batch"]


@given(st.integers(1, 5), st.integers(1, 5))
def test_every_peer_has_its_turn_in_every_round(count: int, rounds: int) -> None:
    """Once a round, and each is first as often as any other when the rounds allow it."""
    peers = [Peer(name=str(index), about="", command=()) for index in range(count)]
    order = [(round_, peer.name) for round_, peer in turns(peers, rounds)]

    assert sorted(order) == [(r, peer.name) for r in range(rounds) for peer in peers]
    firsts = Counter(name for _, name in order[::count])
    assert max(firsts.values()) <= -(-rounds // count)


def test_settings_survive_the_environment(tmp_path: Path) -> None:
    """What the run tells a peer is what the peer hears."""
    settings = PeerSettings(
        model=tmp_path / "a b", max_length=7, cores=3, device="cuda", dtype="bfloat16"
    )

    assert PeerSettings.from_environment(settings.environment()) == settings


def test_an_int8_graph_that_does_not_open_is_one_sentence(assets: Assets, tmp_path: Path) -> None:
    """It is told when the graph is made, and not by each server that waits for its model in vain."""
    import onnx

    exported = tmp_path / "fp32"
    shutil.copytree(assets.exported, exported)
    model = onnx.load(str(exported / MODEL))
    (answer,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["before" if name == answer.name else name for name in node.output]
    model.graph.node.append(
        onnx.helper.make_node("Odd", ["before"], [answer.name], domain="no.such")
    )
    model.opset_import.append(onnx.helper.make_opsetid("no.such", 1))
    onnx.save(model, str(exported / MODEL))

    with pytest.raises(PlainModelFailed, match=r"cannot open optimum's int8 graph: .*no\.such"):
        quantize_plain(exported, tmp_path / "int8")


def test_who_reads_int8_is_known(assets: Assets) -> None:
    """Without an int8 model ours, the prototype and Infinity are still measured."""
    folders = dict.fromkeys(APART, assets.package)
    peers = line_up(assets, cores=2, port=1, environments=folders)

    others = {peer.name for peer in peers if peer.model != assets.quantized}
    assert others == {OURS, PROTOTYPE, "infinity"}


def test_what_peers_cannot_answer_is_refused(tmp_path: Path) -> None:
    """A package of several labels or of pairs: one sentence, before any model is made."""
    for change, words in (
        ({"task": "multi_label"}, "several labels"),
        ({"text_pair": True}, "pairs of texts"),
    ):
        fields: dict[str, Any] = {
            "name": "n",
            "task": "single_label",
            "text_pair": False,
            "labels": ("a", "b"),
            "max_length": 8,
            "pad_token_id": 0,
            "inputs": ("input_ids",),
            "precision": "fp32",
            "batch_invariant": True,
            "base_model": "m",
            **change,
        }
        config = PackageConfig(**fields)
        package = cast("Package", SimpleNamespace(config=config, folder=tmp_path))
        with pytest.raises(PeerUnsuited, match=words):
            prepare(package, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--package", "nothing"), "The package 'nothing' cannot be found"),
        (("--peers", "nobody"), "There is no peer 'nobody'"),
        (("--rounds", "0"), "--rounds 0 is too little"),
        (("--queries-goal-ms", "0"), "--queries-goal-ms 0 is too little"),
    ],
)
def test_bad_input_is_one_sentence(
    miniml_home: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 1, no traceback, and nothing was started."""
    assert miniml_home.exists()
    command = [sys.executable, "-m", "miniml", "bench", "peers", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
