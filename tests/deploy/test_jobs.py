"""What a job takes over from the one before: from a stand-in for GitHub's API, or the registry."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import DeployError, NothingToTake
from deploy.jobs.fetch import fetch_artifact
from deploy.jobs.summary import summarise
from deploy.options import FetchOptions, SummaryOptions
from registry import store
from registry.artifact import MANIFEST, verify
from registry.errors import RegistryError

RUNS = "/api/repos/us/reviews/actions/workflows/deploy.yml/runs"


@dataclass
class GitHub:
    """Runs and artifacts as GitHub's REST API tells them; bytes lie on another host, as there.

    asked: path and query of each request, with the token it carried.
    """

    artifacts: dict[int, dict[str, Any]] = field(default_factory=dict)  # by run
    files: dict[int, bytes] = field(default_factory=dict)  # by artifact
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        bare = path.partition("?")[0]
        name = bare.rpartition("/")[2]
        if "/workflows/" in bare:
            runs = [
                {"id": run, "html_url": f"run/{run}", "created_at": f"2026-11-{run:02}T00:00:00Z"}
                for run in self.artifacts
            ]
            return 200, {}, json.dumps({"workflow_runs": runs}).encode()
        if name == "artifacts":
            run = int(bare.split("/")[-2])
            artifact = {"id": run, "name": "package", "size_in_bytes": 1, **self.artifacts[run]}
            artifact["archive_download_url"] = f"{self.url}/api/zip/{run}"
            return 200, {}, json.dumps({"artifacts": [artifact]}).encode()
        if "/api/zip/" in bare:
            other = self.url.replace("127.0.0.1", "localhost")
            return 302, {"location": f"{other}/bytes/{name}"}, b""
        return 200, {}, self.files[int(name)]


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """A server that answers as GitHub does, and the environment of a step that knows it."""
    state = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["authorization"]))
            status, headers, body = state.answer(self.path)
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": f"{state.url}/api",
        "GITHUB_REPOSITORY": "us/reviews",
        "GITHUB_REF_NAME": "main",
        "GITHUB_TOKEN": "a-token",
    }.items():
        monkeypatch.setenv(name, value)
    yield state
    server.shutdown()
    server.server_close()


def zipped(folder: Path, **more: str) -> bytes:
    """*folder* as upload-artifact packs it; more: names and texts beside its files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
        for name, text in more.items():
            archive.writestr(name, text)
    return file.getvalue()


def test_the_newest_that_is_still_there_is_taken(
    github: GitHub, package: Path, tmp_path: Path
) -> None:
    """An expired artifact is stepped over; what comes is verified; the token stays with the API."""
    github.artifacts = {3: {"expired": False}, 9: {"expired": True}, 7: {"expired": False}}
    github.files = {7: zipped(package)}
    found = fetch_artifact(FetchOptions(kind="package", output=tmp_path / "taken"))

    assert found.source == "run/7"
    assert verify(tmp_path / "taken").digest == found.digest == verify(package).digest
    assert github.asked[0][0] == f"{RUNS}?status=success&branch=main&per_page=20"
    assert {token for path, token in github.asked if path.startswith("/api/")} == {"Bearer a-token"}
    assert {token for path, token in github.asked if path.startswith("/bytes/")} == {None}


def test_nothing_to_take_is_said(github: GitHub, tmp_path: Path) -> None:
    """Where every artifact has expired, the message names the workflow to run; nothing is left."""
    github.artifacts = {9: {"expired": True}}

    with pytest.raises(NothingToTake, match=r"deploy\.yml on main"):
        fetch_artifact(FetchOptions(kind="package", output=tmp_path / "taken"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"extra.txt": "?"}, "package", r"extra\.txt is not in the manifest"),
        ({"../out.txt": "?"}, "package", r"out\.txt is not in the manifest"),
        ({}, "dataset", "a dataset is needed here"),
    ],
    ids=["one file more", "a name that leads out", "another kind"],
)
def test_what_is_not_whole_is_refused(  # noqa: PLR0913, PLR0917 - what comes, and what is said
    github: GitHub, package: Path, tmp_path: Path, more: dict[str, str], kind: Any, words: str
) -> None:
    """What is changed or of another kind never appears, nor does anything beside it."""
    github.artifacts, github.files = {1: {"expired": False}}, {1: zipped(package, **more)}
    target = tmp_path / "in" / "taken"

    with pytest.raises(RegistryError, match=words):
        fetch_artifact(FetchOptions(kind=kind, output=target))
    assert list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "out.txt").exists()


def test_github_that_fails_is_said(github: GitHub, tmp_path: Path) -> None:
    """An answer that is no archive is one sentence, and leaves nothing."""
    github.artifacts, github.files = {1: {"expired": False}}, {1: b"no archive"}

    with pytest.raises(DeployError, match="is no archive"):
        fetch_artifact(FetchOptions(kind="package", output=tmp_path / "taken"))
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_the_registry_is_asked(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on GitHub, the newest version of the kind is taken, whatever its name."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    store.publish(package, name="reviews", recipe="", metrics={})
    found = fetch_artifact(FetchOptions(kind="package", output=tmp_path / "taken"))

    assert found.source == "reviews/1"
    assert verify(tmp_path / "taken").digest == verify(package).digest
    with pytest.raises(DeployError, match="is there already"):
        fetch_artifact(FetchOptions(kind="package", output=tmp_path / "taken"))


def test_a_summary_is_added_to_the_jobs(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood there stays; digest, lineage and the card follow; an unsealed folder is refused."""
    place = tmp_path / "summary.md"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    told = summarise(SummaryOptions(folder=package)).markdown

    assert place.read_text() == "before\n" + told
    assert verify(package).digest in told
    assert "| dataset | `reviews/4` |" in told
    assert "### reviews" in told
    (package / MANIFEST).unlink()
    with pytest.raises(RegistryError):
        summarise(SummaryOptions(folder=package))
