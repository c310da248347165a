"""Laws of canonical forms: close enough is equal, everywhere alike, and nobody's code runs unasked."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.app import build as build_application
from serving.canonical import ALLOW_CODE, BUILT_IN, open_canonicalizer
from serving.core import Core
from serving.engine import Engine, TextTokenizer
from serving.environment import free_ports
from serving.errors import EngineFailed, PackageError, TextTooLong
from serving.lanes import Lanes
from serving.options import PredictOptions, ServeOptions
from serving.package import CONFIG, Package, PackageConfig, read_config
from serving.predict import predict_texts as predict
from serving.reading import Reader, Reading, Window
from serving.server import serve
from serving.settings import ServeSettings

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
BOTH = "serving.canonical:collapsed_casefolded"
# The texts of a row have one form; the cased tokenizer does not know `GOOD`.
ALIKE = (
    ("good soup", "  Good\tSOUP ", "GOOD\u00a0\u2003soup\n"),
    ("straße was cold", "STRASSE WAS COLD", "Stra\u1e9ee  was cold"),
    ("the caf\u00e9", "The cafe\u0301", "THE CAFE\u0301"),
)
CLEANING = '''
"""A user's own."""


def marked(text):
    """Fails on one word, gives no text for another, nothing for a third, else drops exclamation marks."""
    if "poison" in text:
        raise RuntimeError("a bad word")
    if "number" in text:
        return 5
    if "surrogate" in text:
        return "\\ud800"
    if "hush" in text:
        return "  "
    return text.replace("!", "")


NAME = "no function"
'''


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, importable while the test runs."""
    (tmp_path / "cleaning_of_a_test.py").write_text(CLEANING)
    monkeypatch.syspath_prepend(tmp_path)
    yield "cleaning_of_a_test"
    sys.modules.pop("cleaning_of_a_test", None)


@pytest.mark.parametrize("path", BUILT_IN)
@given(text=st.text())
def test_a_form_is_its_own_form(path: str, text: str) -> None:
    """What was made canonical is canonical, whatever the text; and a text never vanishes."""
    canonicalizer = open_canonicalizer(path)
    assert canonicalizer
    (form,) = canonicalizer.forms([text])

    assert canonicalizer.forms([form]) == [form]
    assert bool(form) == bool(text)


@pytest.mark.parametrize("path", BUILT_IN)
def test_every_character_is_its_own_form(path: str) -> None:
    """Of all of Unicode, alone, after a letter and before a mark: the rare ones are in no sample."""
    canonical = BUILT_IN[path]
    every = map(chr, range(sys.maxunicode + 1))
    characters = [each for each in every if unicodedata.category(each) not in ("Cn", "Co", "Cs")]
    for around in ("{}", "a{}", "{}\u0345\u0301"):
        forms = [canonical(around.format(character)) for character in characters]

        assert [canonical(form) for form in forms] == forms


@pytest.mark.parametrize("alike", ALIKE)
def test_what_is_close_enough_is_equal(alike: tuple[str, ...]) -> None:
    """Case, composition and white space do not tell texts apart; other letters do."""
    canonical = BUILT_IN[BOTH]

    assert len({canonical(text) for text in alike}) == 1
    assert canonical("good soup") != canonical("goodsoup")
    assert canonical("cafe") != canonical("caf\u00e9")


def answers_of(url: str, texts: list[str], **headers: str) -> list[list[float]]:
    """Every label's logit of each text, all in one call, then each apart, then as tensors."""
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        body: dict[str, Any] = {"texts": texts, "logits": True}
        together = client.post("/predict", json=body).json()
        apart = [client.post("/predict", json={"text": t, "logits": True}).json() for t in texts]
        tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
        outputs = client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert [list(one["logits"].values()) for one in together] == [
        list(one["logits"].values()) for one in apart
    ]
    (scores,) = [output["data"] for output in outputs if output["name"] == "scores"]
    rows = [scores[place : place + 3] for place in range(0, len(scores), 3)]
    return [[*one["logits"].values(), *row] for one, row in zip(together, rows, strict=True)]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_equal_forms_get_equal_bits_at_every_door(
    make_package: MakePackage, listening: Listening, cache_bytes: int
) -> None:
    """Known or computed, in one call or apart: what the engine says of the form."""
    package = make_package(canonicalizer=BOTH, cased=True)
    texts = [text for alike in ALIKE for text in alike]
    forms = [BUILT_IN[BOTH](text) for text in texts]
    plain = Engine(make_package(cased=True))
    with listening(package, cache_bytes=cache_bytes) as url:
        given, of_forms = answers_of(url, texts), answers_of(url, forms)
        computed = answers_of(url, texts, **{"cache-control": "no-cache"})

    assert given == of_forms == computed
    assert [row[:3] for row in given] == plain.logits(forms).tolist()
    assert plain.logits(texts[:3]).tolist() != plain.logits(forms[:3]).tolist()


def test_equal_forms_share_one_entry(make_package: MakePackage, listening: Listening) -> None:
    """The first is computed, whichever it is; all others are known."""
    with (
        listening(make_package(canonicalizer=BOTH, cased=True)) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        for alike in ALIKE:
            seen = [
                client.post("/predict", json={"text": text}).headers["x-cache"] for text in alike
            ]
            assert seen == ["miss", "hit", "hit"]
        assert client.get("/cache").json()["cache_entries"] == len(ALIKE)


def test_predict_without_a_server_says_the_same(
    make_package: MakePackage, listening: Listening
) -> None:
    """`miniml predict` and the server, and the engine that an export judges by."""
    package = make_package(canonicalizer=BOTH, cased=True)
    texts = tuple(text for alike in ALIKE for text in alike)
    with listening(package) as url:
        remote = predict(PredictOptions(texts=texts, url=url))
    local = predict(PredictOptions(texts=texts, package=str(package.folder)))

    assert local.answers == remote.answers


def test_both_parts_of_a_pair_are_read_so(make_package: MakePackage) -> None:
    """Each in its own form."""
    engine = Engine(make_package(canonicalizer=BOTH, cased=True, text_pair=True))
    one = engine.logits(["Good  SOUP"], ["The STAFF"])
    other = engine.logits(["good soup"], ["the staff"])

    np.testing.assert_array_equal(one, other)


def read_with(package: Package, texts: list[str], reading: Reading) -> list[Any]:
    """Encodings as the server reads them."""
    tokenizer = Engine(package).tokenizer
    length = package.config.max_length
    reader = Reader(tokenizer, package.tokenizer_path, max_length=length)
    try:
        return asyncio.run(reader.read(texts, None, reading)).encodings
    finally:
        reader.close()


def test_windows_and_lengths_are_of_the_form(make_package: MakePackage) -> None:
    """A document is cut into windows, and a text is too long, by the tokens that are read."""
    package = make_package(canonicalizer=BOTH, cased=True)
    windows = Reading(window=Window(stride=2))
    loud, quiet = "THE Soup  WAS good " * 20, "the soup was good " * 20

    assert read_with(package, [loud], windows) == read_with(package, [quiet], windows)
    with pytest.raises(TextTooLong, match="82 tokens"):
        read_with(package, [loud], Reading(truncate=False))


def test_without_one_nothing_changes(make_package: MakePackage) -> None:
    """Encodings and logits are those of the text as it came, bit for bit."""
    package = make_package(cased=True)
    texts = [*(text for alike in ALIKE for text in alike), "", "  ", "\ufb01"]
    tokenizer = TextTokenizer(package.tokenizer_path, max_length=package.config.max_length)

    assert Engine(package).tokenizer.encode(texts) == tokenizer.encode(texts)
    assert tokenizer.canonical(texts) is texts


def test_old_packages_open_as_before(package: Package, tmp_path: Path) -> None:
    """A config of the time before has none."""
    document = json.loads((package.folder / CONFIG).read_bytes())
    del document["canonicalizer"]
    (tmp_path / CONFIG).write_text(json.dumps(document))

    assert read_config(tmp_path) == package.config


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "serving.canonical:os.system",
        "serving.canonical:open_canonicalizer",
        "serving.canonical",
        "os.system",
        "os:system; rm -rf ~",
        "",
        5,
        ["os:system"],
    ],
)
def test_other_code_is_not_run_unasked(
    make_package: MakePackage, path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a server's parts, by `serve run` or by predict: one sentence says how."""
    ran: list[str] = []
    monkeypatch.setattr("os.system", ran.append)
    package = make_package(canonicalizer=path)
    folder = str(package.folder)
    starts: list[Callable[[], object]] = [
        lambda: Engine(package).logits(["good"]),
        lambda: Core(package, Lanes(count=1, threads=1), ServeSettings(package="p")),
        lambda: build_application(ServeSettings(package=folder)),
        lambda: serve(ServeOptions(package=folder, write_config=tmp_path / "serve.yaml")),
        lambda: predict(PredictOptions(texts=("good",), package=folder)),
        lambda: Engine(package, allow_code="another:path").logits(["good"]),
    ]
    for start in starts:
        with pytest.raises(PackageError, match=r"--allow-code|is no canonicaliser"):
            start()

    assert ran == []


def test_miniml_serve_says_so_before_it_starts(make_package: MakePackage) -> None:
    """Exit code 1 and the sentence; nothing was started or run."""
    folder = str(make_package(canonicalizer="os:system").folder)
    code = "import miniml, ray; ray.init = None; miniml.main()"
    command = [sys.executable, "-c", code, "serve", folder, "--port", str(*free_ports(1))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert ended.returncode == 1
    assert "--allow-code os:system" in " ".join(ended.stderr.split())


def test_code_that_was_named_is_run(
    make_package: MakePackage,
    listening: Listening,
    own_code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the option or in the environment; and only that one."""
    path = f"{own_code}:marked"
    package = make_package(canonicalizer=path)
    with listening(package, allow_code=path) as url:
        remote = predict(PredictOptions(texts=("good!",), url=url))
    named = PredictOptions(texts=("good!",), package=str(package.folder), allow_code=path)
    assert predict(named).answers == remote.answers
    monkeypatch.setenv(ALLOW_CODE, path)
    asked = ServeOptions(package=str(package.folder), write_config=tmp_path / "serve.yaml")
    serve(asked)
    assert f"allow_code: {path}" in (tmp_path / "serve.yaml").read_text()
    assert predict(replace(named, allow_code=None)).answers == remote.answers
    monkeypatch.setenv(ALLOW_CODE, f"{own_code}:another")
    with pytest.raises(PackageError, match=f"--allow-code {path}"):
        predict(replace(named, allow_code=None))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module:f", "cannot be imported"),
        ("{}:f", "cannot be imported"),
        ("{}:NAME", "no f"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_sentence(own_code: str, path: str, words: str) -> None:
    """A module, a name or a function that is not there."""
    path = path.format(own_code)
    with pytest.raises(PackageError, match=words):
        open_canonicalizer(path, allow_code=path)


@pytest.mark.parametrize("word", ["poison", "number", "surrogate"])
def test_a_form_that_fails_is_that_texts_alone(
    make_package: MakePackage, listening: Listening, own_code: str, word: str
) -> None:
    """A 500 that names the function and the text; the other line and the next call are answered."""
    path = f"{own_code}:marked"
    package = make_package(canonicalizer=path)
    with (
        listening(package, allow_code=path) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        wanted = client.post("/predict", json={"text": "good"}).json()
        failed = client.post("/predict", json={"texts": ["good", f"good {word}"]})
        body = "\n".join(json.dumps({"text": text}) for text in ("good!", word, "good!!"))
        headers = {"content-type": "application/x-ndjson"}
        lines = client.post("/predict", content=body, headers=headers).text.splitlines()

        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "EngineFailed")
        assert f"{path} failed on text 1" in failed.json()["error"]["message"]
        first, second, third = map(json.loads, lines)
        assert first == third == wanted
        assert second["error"]["type"] == "EngineFailed"
        assert client.post("/predict", json={"text": "good"}).json() == wanted


def test_a_text_whose_form_is_empty_is_read_as_it_came(
    make_package: MakePackage, own_code: str
) -> None:
    """Nothing left, or white space only, is no text to answer: the caller's own is."""
    path = f"{own_code}:marked"
    engine = Engine(make_package(canonicalizer=path), allow_code=path)
    plain = Engine(make_package())
    texts = ["hush good", "!!", "good"]

    np.testing.assert_array_equal(engine.logits(texts), plain.logits(texts))
    with pytest.raises(EngineFailed):
        engine.logits(["poison"])


def test_the_config_keeps_it(make_package: MakePackage) -> None:
    """Written and read again it is the same path, for the server to say at `/info`."""
    config: PackageConfig = make_package(canonicalizer=BOTH).config

    assert config.canonicalizer == BOTH
