"""Laws of the registry's page and of a tracking server, both real, over HTTP on loopback."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from registry import store
from registry.artifact import verify
from registry.connection import until_not_beaten
from registry.errors import AddressTaken, NotFound, StoreUnavailable

MakeArtifact = Callable[..., Path]
SHOW = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.getLogger().setLevel(logging.WARNING)
logging.getLogger("registry").setLevel(logging.INFO)
from registry import store
try:
    store.ui(port=int(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[tuple[str, Path]]:
    """Address and home of `store.ui` in a process of its own; the law of its end is in here."""
    home = tmp_path_factory.mktemp("page")
    (home / "registry").mkdir()
    shutil.copyfile(empty_database, home / "registry" / "mlflow.db")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, str(port)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MINIML_HOME": str(home)},
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    assert said == f"The registry is at http://127.0.0.1:{port}; Ctrl-C stops it.\n"
    yield f"http://127.0.0.1:{port}", home
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


@pytest.fixture
def server(page: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The same process as a tracking server, named as a user would name it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", page[0])
    return page[0]


def get(url: str) -> bytes:
    """The body."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def test_the_page_shows_the_embedded_store(
    page: tuple[str, Path], make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published beside a running page is on it: version, run and files."""
    url, home = page
    monkeypatch.setenv("MINIML_HOME", str(home))
    version = store.publish(make_artifact(), name="embedded")
    api = f"{url}/api/2.0/mlflow"
    found = json.loads(get(f"{api}/model-versions/get?name=embedded&version=1"))
    files = json.loads(get(f"{api}/artifacts/list?run_id={version.run_id}&path=package"))

    assert b"<html" in get(url)
    assert found["model_version"]["run_id"] == version.run_id
    assert "package/config.json" in {file["path"] for file in files["files"]}


def test_a_taken_port_is_told(page: tuple[str, Path]) -> None:
    """Where somebody listens, nothing is started, and the sentence names the address."""
    port = int(page[0].rpartition(":")[2])

    with pytest.raises(AddressTaken, match=f"127.0.0.1:{port}"):
        store.ui(port=port)


@pytest.mark.parametrize("port", [0, 65_536, 70_000])
def test_no_page_is_shown_at_a_port_that_cannot_be(port: int) -> None:
    """The kernel would take 70000 for 4464; it is refused."""
    with pytest.raises(AddressTaken, match=f"no port {port}"):
        store.ui(port=port)


def test_a_server_has_its_own_page(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """With a tracking server, its address is told and nothing is started."""
    with caplog.at_level(logging.INFO, logger="registry"):
        store.ui(port=free_port())

    assert server in caplog.text


@pytest.mark.usefixtures("server")
def test_what_is_published_over_http_comes_back(
    make_artifact: MakeArtifact, miniml_home: Path
) -> None:
    """The server takes the bytes, gives the number, and hands all of it out again, verified."""
    folder = make_artifact("checkpoint", lineage={"dataset": "reviews/1"})
    version = store.publish(
        folder, name="remote", recipe="abc", metrics={"accuracy": 0.5}, alias="champion"
    )
    fetched = store.fetch(store.resolve("remote@champion", kind="checkpoint"))

    assert version.uri.startswith("mlflow-artifacts:")
    assert store.resolve("models:/remote/1", kind="checkpoint") == version
    assert store.find(kind="checkpoint", name="remote", recipe="abc") == version
    assert store.list_versions(name="remote") == [version]
    assert version.metrics == {"accuracy": 0.5}
    assert fetched == miniml_home / "cache" / version.digest
    assert verify(fetched) == verify(folder)
    assert store.verify_version("remote/1", kind="checkpoint") == version
    with pytest.raises(NotFound, match="No package named 'remote'"):
        store.resolve("remote", kind="package")


@pytest.mark.usefixtures("server")
def test_publishers_over_http_each_get_a_number(
    make_artifact: MakeArtifact, start_publisher: Callable[..., BaseProcess], server: str
) -> None:
    """Processes that publish at once to a server lose nothing either."""
    running = [
        start_publisher(folder=str(make_artifact()), name="crowd", times=2, tracking_uri=server)
        for _ in range(3)
    ]
    for process in running:
        process.join()

    assert [process.exitcode for process in running] == [0, 0, 0]
    assert sorted(v.number for v in store.list_versions(name="crowd")) == [1, 2, 3, 4, 5, 6]


def test_bytes_that_came_over_http_are_the_embedded_stores_too(
    page: tuple[str, Path], make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server took into an embedded store is found without the server, and swept by gc."""
    url, home = page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    for _ in range(2):
        store.publish(make_artifact(), name="both")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MINIML_HOME", str(home))
    first, second = (store.resolve(f"both/{number}", kind="package") for number in (1, 2))
    assert store.fetch(first).is_relative_to(home)

    assert first in store.gc(keep=1).removed
    assert not Path(first.uri).exists()
    store.fetch(second)


def test_what_was_published_beside_a_page_comes_through_it(
    page: tuple[str, Path],
    make_artifact: MakeArtifact,
    monkeypatch: pytest.MonkeyPatch,
    miniml_home: Path,
) -> None:
    """A machine without the page's disk finds there what was never sent over HTTP."""
    url, home = page
    folder = make_artifact()
    monkeypatch.setenv("MINIML_HOME", str(home))
    version = store.publish(folder, name="beside")
    monkeypatch.setenv("MINIML_HOME", str(miniml_home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    place = f"mlflow-artifacts:/{version.run_id}/artifacts/package"  # see `Backend.place`

    assert verify(store.fetch(replace(version, uri=place))) == verify(folder)


@pytest.mark.usefixtures("server")
def test_gc_on_a_server_removes_records(make_artifact: MakeArtifact) -> None:
    """Old versions go there too, aliased ones stay, and numbers are not given again."""
    for alias in ("champion", None, None):
        store.publish(make_artifact(), name="swept", alias=alias)
    removed = {version.reference for version in store.gc(keep=1).removed}

    assert "swept/2" in removed
    assert [version.number for version in store.list_versions(name="swept")] == [3, 1]
    assert store.publish(make_artifact(), name="swept").number == 4


def test_who_is_beaten_to_a_row_writes_again() -> None:
    """A lost race is run again until it is won; any other refusal is not repeated."""
    answers: list[Exception | str] = [
        MlflowException("BAD_REQUEST: (sqlite3.IntegrityError) UNIQUE constraint failed: aliases"),
        MlflowException("Model Version creation error (name=x). Giving up after 3 attempts."),
        "written",
        MlflowException("BAD_REQUEST: name too long"),
        "never asked for",
    ]

    def write() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until_not_beaten(write) == "written"
    with pytest.raises(MlflowException, match="too long"):
        until_not_beaten(write)
    assert answers == ["never asked for"]


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server is one sentence with its address, without the password in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreUnavailable, match="check MLFLOW_TRACKING_URI") as caught:
        store.list_versions()

    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
