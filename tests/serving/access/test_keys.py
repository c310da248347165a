"""Laws of API keys: one wrong character is refused, a revoked key stops, nothing secret is kept."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.access.keys import (
    KeyProblem,
    KeyRing,
    create_key,
    default_keys,
    keys_for,
    read_keys,
    revoke_key,
)
from serving.options import ServeOptions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where keys go."""
    return tmp_path / "deep" / "keys.json"


def test_a_key_is_found_and_one_wrong_character_is_nobodys(file: Path) -> None:
    """Wherever the character stands, and whatever is cut off or added."""
    key, secret = create_key(file, "web", texts_per_s=5)
    create_key(file, "other")
    ring = KeyRing(file)

    assert ring.find(secret) == key
    assert (key.name, key.texts_per_s, key.admin) == ("web", 5, False)
    for place, character in enumerate(secret):
        wrong = "x" if character != "x" else "y"
        assert ring.find(secret[:place] + wrong + secret[place + 1 :]) is None
    for wrong in ("", secret[:-1], secret + "a", secret.upper(), "mm", "mm_", "_" * 9, "é" * 9):
        assert ring.find(wrong) is None


def test_a_revoked_key_stops_and_a_new_one_works_without_a_restart(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a second of the clock, in every ring that reads the file."""
    now_s = 100.0
    monkeypatch.setattr("serving.access.keys.time.monotonic", lambda: now_s)
    _, secret = create_key(file, "web")
    rings = [KeyRing(file), KeyRing(file)]
    assert all(ring.find(secret) for ring in rings)
    revoke_key(file, "web")
    _, later = create_key(file, "web")
    now_s += 1.0

    assert [ring.find(secret) for ring in rings] == [None, None]
    assert all(ring.find(later) for ring in rings)
    file.unlink()
    now_s += 1.0
    assert [ring.find(later) for ring in rings] == [None, None]


def test_the_file_keeps_no_secret_and_is_the_owners(file: Path) -> None:
    """Neither the secret nor a part of it; nobody else may read even the hashes."""
    _, secret = create_key(file, "web")
    text = file.read_text()

    assert secret not in text
    assert secret.split("_", 2)[2][:12] not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_keys_made_at_once_are_all_there(file: Path) -> None:
    """Twenty writers, twenty keys, each of which is found."""
    with ThreadPoolExecutor(20) as writers:
        made = list(writers.map(lambda n: create_key(file, f"key {n}"), range(20)))
    ring = KeyRing(file)

    assert {key.name for key in read_keys(file)} == {f"key {n}" for n in range(20)}
    assert all(ring.find(secret) == key for key, secret in made)


def test_names_are_one_persons(file: Path) -> None:
    """The same name twice, and one that is not there, are refused with what there is."""
    create_key(file, "web")

    with pytest.raises(KeyProblem, match="'web' already"):
        create_key(file, "web")
    with pytest.raises(KeyProblem, match=r"no key 'app'.*: web"):
        revoke_key(file, "app")
    assert len(read_keys(file)) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"name": "a"}]}', '{"keys": 5}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    """It is said which, and it is not written over."""
    file = tmp_path / "keys.json"
    file.write_text(content)
    for work in (lambda: KeyRing(file), lambda: create_key(file, "web")):
        with pytest.raises(KeyProblem, match="holds no keys that can be read"):
            work()
    assert file.read_text() == content


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_alone_needs_no_key(host: str, file: Path) -> None:
    """Nobody is asked; a file that is named is used all the same."""
    assert keys_for(ServeOptions(host=host)) is None
    create_key(file, "web")
    assert keys_for(ServeOptions(host=host, keys=file)) == file


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org"])
def test_beyond_this_machine_everybody_is_asked(host: str) -> None:
    """Without a key the server is refused, with it the default file is used; or one insists."""
    with pytest.raises(KeyProblem, match="everybody on the network"):
        keys_for(ServeOptions(host=host))
    assert keys_for(ServeOptions(host=host, insecure=True)) is None
    create_key(default_keys(), "web")
    assert keys_for(ServeOptions(host=host)) == default_keys()


def test_a_file_without_keys_is_refused(file: Path) -> None:
    """A server that nobody could ask is not started."""
    with pytest.raises(KeyProblem, match="holds no key"):
        keys_for(ServeOptions(keys=file))
    create_key(file, "web")
    revoke_key(file, "web")
    with pytest.raises(KeyProblem, match="holds no key"):
        keys_for(ServeOptions(keys=file))
    assert json.loads(file.read_text())["keys"] == []
