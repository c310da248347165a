"""Laws of artifacts in an object store, over real HTTP against an S3 server of this process."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from mlflow.tracking import MlflowClient
from moto.server import ThreadedMotoServer

from registry import store
from registry.artifact import MANIFEST, SIGNATURE, read_manifest, verify
from registry.errors import CorruptArtifact, NotFound, StoreUnavailable
from registry.transfer import upload_objects

MakeArtifact = Callable[..., Path]
PLACE = "s3://artifacts/packages/reviews"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Address of an S3 server on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The bucket `artifacts`, reached through the environment as a user would."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("artifacts")
    yield files
    files.rm("artifacts", recursive=True)


def files_left(home: Path) -> list[str]:
    """What lies in the cache, leavings of broken downloads included."""
    return sorted(path.name for path in (home / "cache").glob("*"))


@pytest.mark.usefixtures("bucket")
def test_an_artifact_comes_back_from_s3(make_artifact: MakeArtifact, miniml_home: Path) -> None:
    """What was put there is resolved by its manifest and fetched whole, once, into the cache."""
    folder = make_artifact(lineage={"checkpoint": "reviews/1"})
    upload_objects(folder, PLACE, read_manifest(folder))
    version = store.resolve(PLACE + "/", kind="package")
    fetched = store.fetch(version)

    assert (version.number, version.name, version.reference) == (0, "reviews", PLACE)
    assert verify(fetched) == verify(folder)
    assert files_left(miniml_home) == [version.digest]
    assert store.verify_version(PLACE, kind="package") == version
    with pytest.raises(CorruptArtifact, match="holds a package, but a dataset"):
        store.resolve(PLACE, kind="dataset")


@pytest.mark.usefixtures("bucket")
def test_a_signature_comes_back_from_s3(make_artifact: MakeArtifact) -> None:
    """It is put beside what it signs and fetched with it, though no manifest lists it."""
    folder = make_artifact()
    (folder / SIGNATURE).write_bytes(b"signed")
    upload_objects(folder, PLACE, read_manifest(folder))

    fetched = store.fetch(store.resolve(PLACE, kind="package"))

    assert (fetched / SIGNATURE).read_bytes() == b"signed"


def test_what_is_cached_needs_no_network_and_is_still_verified(
    make_artifact: MakeArtifact, bucket: fsspec.AbstractFileSystem
) -> None:
    """A cached artifact is used as it is; a damaged one is downloaded again."""
    folder = make_artifact()
    upload_objects(folder, PLACE, read_manifest(folder))
    version = store.resolve(PLACE, kind="package")
    fetched = store.fetch(version)
    (fetched / "config.json").write_bytes(b"poison")
    assert verify(store.fetch(version)) == verify(folder)
    bucket.rm(PLACE, recursive=True)

    assert verify(store.fetch(version)) == verify(folder)
    with pytest.raises(NotFound, match=PLACE):
        store.verify_version(PLACE, kind="package")


def test_damaged_objects_are_refused_and_nothing_is_cached(
    make_artifact: MakeArtifact, bucket: fsspec.AbstractFileSystem, miniml_home: Path
) -> None:
    """A changed object, a missing one and a manifest that points outside are refused by name."""
    folder = make_artifact()
    upload_objects(folder, PLACE, read_manifest(folder))
    version = store.resolve(PLACE, kind="package")
    bucket.pipe_file(f"{PLACE}/config.json", b"no")
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        store.fetch(version)
    bucket.rm(f"{PLACE}/config.json")
    with pytest.raises(NotFound, match=PLACE):
        store.fetch(version)
    document = json.loads((folder / MANIFEST).read_bytes())
    document["files"]["../../escaped"] = {"sha256": "0" * 64, "bytes": 0}
    wicked = json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"
    bucket.pipe_file(f"{PLACE}/{MANIFEST}", wicked)
    with pytest.raises(CorruptArtifact, match="escaped"):
        store.fetch(store.resolve(PLACE, kind="package"))

    assert files_left(miniml_home) == []


@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_or_not_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such prefix, no such bucket and no server are three clear sentences, not tracebacks."""
    for missing in (PLACE, "s3://nowhere/at/all"):
        with pytest.raises(NotFound, match=missing):
            store.resolve(missing, kind="package")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StoreUnavailable, match="AWS_ENDPOINT_URL"):
            store.resolve(PLACE, kind="package")


@pytest.mark.usefixtures("bucket")
def test_a_server_that_keeps_bytes_in_s3(
    make_artifact: MakeArtifact,
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a tracking store whose runs lie in S3, versions are put there and fetched from there."""
    uri = f"sqlite:///{tmp_path}/tracking.db"
    (tmp_path / "tracking.db").write_bytes(empty_database.read_bytes())
    MlflowClient(tracking_uri=uri).create_experiment("miniml", artifact_location="s3://artifacts/m")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = make_artifact()
    version = store.publish(folder, name="reviews", alias="champion")

    assert version.uri.startswith("s3://artifacts/m/")
    assert store.resolve("reviews@champion", kind="package") == version
    assert verify(store.fetch(version)) == verify(folder)
