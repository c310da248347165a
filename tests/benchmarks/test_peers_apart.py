"""Peers with libraries of their own: how they are asked, where they live, what happens without."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.errors import PeerFailed, PeerNotInstalled
from benchmarks.options import PeersOptions
from benchmarks.peers import codecs, run
from benchmarks.peers.apart import APART
from benchmarks.peers.assets import Assets, bound
from benchmarks.peers.codecs import BENTO, INFINITY, MLSERVER, NATIVE, Codec
from benchmarks.peers.environments import REQUIREMENTS, environment, python_of, sources_of
from benchmarks.peers.line_up import NAMES, OURS, chosen_apart, line_up
from benchmarks.peers.peer import Peer

OWN = {
    "litserve": "litserve==",
    "bentoml": "bentoml==",
    "mlserver": "mlserver==",
    "infinity": "infinity",
}
CODECS = (NATIVE, BENTO, MLSERVER, INFINITY)
# What each answers, as its documentation shows it.
ANSWERS: Mapping[str, tuple[Codec, Any]] = {
    "native": (NATIVE, {"label": "good", "score": 0.9}),
    "bento": (BENTO, [{"label": "good", "score": 0.9}]),
    "mlserver": (
        MLSERVER,
        {
            "model_name": codecs.MODEL_NAME,
            "outputs": [
                {"name": "output-0", "shape": [1, 1], "datatype": "BYTES", "data": ["good"]},
                {"name": "output-1", "shape": [1, 1], "datatype": "FP32", "data": [0.9]},
            ],
        },
    ),
    "infinity": (
        INFINITY,
        {"data": [[{"label": "bad", "score": 0.1}, {"label": "good", "score": 0.9}]]},
    ),
}


def leaves(document: Any) -> Iterator[Any]:
    """Every value of a JSON document that holds no others."""
    if isinstance(document, dict):
        for value in document.values():
            yield from leaves(value)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value)
    else:
        yield document


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.path)
@settings(deadline=None)
@given(text=st.text(min_size=12))
def test_a_body_holds_the_text_once(codec: Codec, text: str) -> None:
    """Whatever the protocol, the server is given exactly the text."""
    assert list(leaves(json.loads(codec.encode(text)))).count(text) == 1


@pytest.mark.parametrize("name", ANSWERS)
def test_a_label_is_read_from_each_answer(name: str) -> None:
    """In each protocol the likeliest label is found."""
    codec, answer = ANSWERS[name]

    assert codec.decode(json.dumps(answer).encode()) == "good"


@settings(deadline=None)
@given(st.permutations(range(4)), st.integers(0, 3))
def test_infinity_answers_in_any_order(order: Sequence[int], best: int) -> None:
    """The likeliest label does not depend on where it stands."""
    scores = [{"label": str(label), "score": 0.7 if label == best else 0.1} for label in order]

    assert INFINITY.label({"data": [scores]}) == str(best)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.path)
@pytest.mark.parametrize("answer", [None, {}, [], {"data": []}, {"outputs": []}, "text", 3])
def test_an_answer_of_another_shape_is_told(codec: Codec, answer: object) -> None:
    """It raises what who asks expects, never an AttributeError."""
    with pytest.raises((KeyError, TypeError, IndexError, ValueError)):
        codec.decode(json.dumps(answer).encode())


def test_what_peers_import_is_there() -> None:
    """Where they run there is this room and no other: what they import of ours needs none."""
    code = (
        "import sys\n"
        "others = ('miniml', 'serving', 'registry', 'training', 'export', 'httpx', 'rich')\n"
        "sys.modules.update(dict.fromkeys(others))\n"
        "import benchmarks.peers.classifier, benchmarks.peers.codecs, benchmarks.peers.contract"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def wheel(folder: Path, version: str) -> Path:
    """A package of one module, installable without a network."""
    path = folder / f"tiny_peer-{version}-py3-none-any.whl"
    info = f"tiny_peer-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_peer.py", f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-peer\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def said(folder: Path, code: str) -> str:
    """What *code* prints in an environment that sees what a peer sees."""
    result = subprocess.run(
        [str(python_of(folder)), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(sources_of(folder))},
        cwd=folder,
    )
    return result.stdout.strip()


def test_an_environment_is_made_once(tmp_path: Path, miniml_home: Path) -> None:
    """It holds what is required and is made again only when that changes."""
    requirements = tmp_path / "requirements.txt"
    heard: list[str] = []
    for version in ("1.0", "1.0", "2.0"):
        requirements.write_text(f"--no-index\n{wheel(tmp_path, version)}\n")
        before = len(heard)
        folder = environment("tiny", requirements, heard.append)

        assert folder == miniml_home / "peers" / "tiny"
        assert said(folder, "import tiny_peer; print(tiny_peer.VERSION)") == version
        assert (len(heard) == before) == (before > 0 and version == "1.0")
    # This room and nothing else of ours.
    code = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    assert said(folder, code.format(("benchmarks", "serving", "miniml"))) == "['benchmarks']"
    assert said(folder, "import benchmarks.peers.codecs as c; print(c.NATIVE.path)") == "/predict"


def test_what_cannot_be_installed_is_one_sentence(tmp_path: Path, miniml_home: Path) -> None:
    """By name, with pip's last word, and it is tried again the next time."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("--no-index\nthere-is-no-such-package==1\n")

    for _ in range(2):
        with pytest.raises(PeerNotInstalled, match=r"^tiny could not be installed: .*no-such"):
            environment("tiny", requirements, lambda _: None)
    assert (miniml_home / "peers" / "tiny").is_dir()


def test_who_is_not_installed_is_left_out(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are lined up, and why one is missing is kept for the table."""
    (tmp_path / "litserve.txt").write_text("--no-index\nthere-is-no-such-package==1\n")
    monkeypatch.setattr(run, "REQUIREMENTS", tmp_path)
    seen = run._Seen()
    with Console(quiet=True).status("") as status:
        folders = run._environments(["litserve", "prototype"], seen, status)
    peers = line_up(assets, cores=2, port=1, names=["litserve", "prototype"], environments=folders)

    assert [peer.name for peer in peers] == [OURS, "prototype"]
    assert "litserve could not be installed" in seen.missing["litserve"]


def test_every_peer_apart_has_its_requirements(assets: Assets, tmp_path: Path) -> None:
    """Each has a file in which every line names one version, and is started from its folder."""
    for name in chosen_apart(()):
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        peer = APART[name](assets, 2, 8123, tmp_path / name)

        assert all(line.count("==") == 1 for line in pins)
        (version,) = (pin.split("==")[1] for pin in pins if pin.lower().startswith(OWN[name]))
        assert f" {version}, " in peer.about
        assert peer.name == name
        assert peer.command[0].startswith(str(tmp_path / name / "bin"))
        assert "8123" in " ".join((*peer.command, *peer.environment.values()))
    assert set(chosen_apart(())) < set(NAMES)
    assert chosen_apart(["mlserver", "prototype"]) == ["mlserver"]


def test_a_bounded_checkpoint_differs_in_one_file(assets: Assets, tmp_path: Path) -> None:
    """The tokenizer cuts where the package does; weights and the rest are the same bytes."""
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    folder = bound(assets.checkpoint, tmp_path / "bounded", 7)
    tokenizer = auto.from_pretrained(str(folder))

    assert len(tokenizer("soup " * 40, truncation=True)["input_ids"]) == 7
    for path in assets.checkpoint.iterdir():
        if path.name != "tokenizer_config.json":
            assert (folder / path.name).read_bytes() == path.read_bytes()


SERVER = """
import http.server as h, sys
class H(h.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  def do_POST(self):
    self.rfile.read(int(self.headers["content-length"]))
    body = b'{"label": "a", "score": 1.0}'
    self.send_response(200)
    self.send_header("content-length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)
  def log_message(self, *_): pass
h.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def scripted(name: str, code: str, port: int) -> Peer:
    """A peer that is a few lines of Python."""
    import sys

    return Peer(name=name, about="", command=(sys.executable, "-c", code, str(port)))


def measured(peers: Sequence[Peer], port: int, logs: Path) -> run._Seen:
    """Two short rounds of *peers*."""
    task = run._Task(
        checked=["x"] * 8, expected=["a"] * 8, workloads={"queries": ["x", "y"]}, logs=logs
    )
    options = PeersOptions(
        rounds=2, connections=1, duration_s=0.2, warmup_s=0.0, search_steps=0, port=port
    )
    seen = run._Seen()
    with Console(quiet=True).status("") as status:
        run._measure_all(peers, task, options, seen, status)
    return seen


def test_a_peer_that_breaks_does_not_end_the_run(tmp_path: Path, free_port: int) -> None:
    """It is a sentence, its turns are skipped, and everybody else is measured to the end."""
    ours = scripted(OURS, SERVER, free_port)
    broken = scripted("broken", "raise SystemExit('no model')", free_port)
    other = scripted("other", SERVER.replace('"a"', '"b"'), free_port)

    seen = measured([ours, broken, other], free_port, tmp_path)

    assert [(r.peer, r.round) for r in seen.runs] == [(OURS, 0), (OURS, 1)]
    assert seen.missing["broken"] == "broken did not start: no model"
    assert "another model" in seen.missing["other"]


def test_ours_breaking_ends_the_run(tmp_path: Path, free_port: int) -> None:
    """Without ours there is nothing to compare with."""
    with pytest.raises(PeerFailed, match="no model"):
        measured([scripted(OURS, "raise SystemExit('no model')", free_port)], free_port, tmp_path)
