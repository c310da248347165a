"""Laws of the client and of `miniml predict`: a server and the engine alone say the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from serving.client import Client, RemoteError
from serving.errors import PackageError
from serving.lanes import Lanes
from serving.options import PredictOptions
from serving.package import Package
from serving.predict import NoInput
from serving.predict import predict_texts as predict

LANES = Lanes(count=1, threads=1)
MakePackage = Callable[..., Package]


@pytest.fixture
def url(package: Package, listening: Callable[..., Any]) -> Iterator[str]:
    """Of a real server."""
    with listening(package) as url:
        yield url


def test_server_and_engine_give_the_same_document(
    url: str, package: Package, tmp_path: Path
) -> None:
    """More texts than go into one call: same answers, same order, same shape, both ways."""
    file = tmp_path / "reviews.txt"
    file.write_text("".join(f"the soup was {'good' if n % 3 else 'bad'} {n}\n" for n in range(150)))
    remote = predict(PredictOptions(input=(str(file),), url=url))
    local = predict(PredictOptions(input=(str(file),), package=str(package.folder)))

    assert remote.document() == local.document()
    rows: Any = remote.document()["predictions"]
    assert [row["text"] for row in rows] == file.read_text().splitlines()
    assert json.loads(json.dumps(remote.document())) == remote.document()


def test_client_answers(url: str) -> None:
    """One text gives an object, several a list in order, with every score on request."""
    with Client(url) as client:
        one = client.predict("good", scores="all")

        assert set(one) == {"label", "score", "scores"}
        assert client.predict_many(["bad", "good"], scores="all")[1] == one


def test_client_raises_the_servers_words(url: str) -> None:
    """A refusal arrives with the message and the hint that the server wrote."""
    with Client(url) as client, pytest.raises(RemoteError, match="text is empty"):
        client.predict("")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "nonsense", "http://[::", "http://a b"])
def test_nobody_there_is_one_sentence(address: str) -> None:
    """An address that does not answer, or is none, gives our error and not the library's."""
    with pytest.raises(RemoteError):
        predict(PredictOptions(texts=("good",), url=address))


def test_waiting_ends_with_the_server(url: str) -> None:
    """Waiting for a server that has stopped ends at once; for one that is up, too."""
    with Client(url) as client, Client("http://127.0.0.1:9") as nobody:
        client.wait_ready(timeout_s=5)

        with pytest.raises(RemoteError, match="stopped before"):
            nobody.wait_ready(timeout_s=60, alive=lambda: False)
        with pytest.raises(RemoteError, match="within 0 s"):
            nobody.wait_ready(timeout_s=0.2)


def test_texts_from_standard_input(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of standard input are texts: BOM, CRLF and blank lines do not count, U+2028 does."""
    raw = "\ufeffgood\r\n\n  \nbad\u2028soup\n".encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    result = predict(PredictOptions(package=str(package.folder)))

    assert [q.text for q in result.questions] == ["good", "bad\u2028soup"]


def test_pairs_from_json_lines(make_package: MakePackage, tmp_path: Path) -> None:
    """A .jsonl file may carry pairs; the document shows both texts."""
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"text": "good", "text_pair": "bad"}\n{"text": "a", "text_pair": "b"}\n')
    result = predict(
        PredictOptions(input=(str(file),), package=str(make_package(text_pair=True).folder))
    )
    rows: Any = result.document()["predictions"]

    assert [(row["text"], row["text_pair"]) for row in rows] == [("good", "bad"), ("a", "b")]


def test_the_table_shows_each_text(package: Package) -> None:
    """The human table has label, score and text of every answer."""
    result = predict(PredictOptions(texts=("good", "bad"), package=str(package.folder)))
    console = Console(file=io.StringIO(), width=80)
    console.print(result)
    shown = console.file.getvalue()  # type: ignore[attr-defined]

    for question, answer in zip(result.questions, result.answers, strict=True):
        assert all(s in shown for s in (question.text, answer["label"], f"{answer['score']:.3f}"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "cannot be read"),
        ("empty.txt", b"", "no text"),
        ("latin.txt", b"caf\xe9\n", "cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{', "line 2 is not"),
        ("b.jsonl", b'["a"]', "line 1 is not"),
        ("c.jsonl", b'{"text": 5}', "must be strings"),
    ],
)
def test_unreadable_input_is_one_sentence(
    package: Package, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    """A file that is absent, empty, not UTF-8 or not JSON lines is refused with the place."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(NoInput, match=words):
        predict(PredictOptions(input=(str(tmp_path / name),), package=str(package.folder)))


def test_a_tampered_package_is_refused(package: Package) -> None:
    """A flipped byte in the model is noticed before it answers, and named."""
    raw = bytearray(package.model_path.read_bytes())
    raw[50] ^= 1
    package.model_path.write_bytes(raw)

    with pytest.raises(PackageError, match=r"model\.onnx was changed"):
        predict(PredictOptions(texts=("good",), package=str(package.folder)))
