"""Laws of a hub when things go wrong: one sentence each, nothing half-written, nothing lost."""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from registry import store
from registry.artifact import STAGING_SUFFIX, read_manifest, verify
from registry.errors import CorruptArtifact, NotAllowed, StoreUnavailable
from registry.gc import STALE_S
from registry.transfer import upload_objects
from serving.locate import locate

MakeArtifact = Callable[..., Path]
StartPublisher = Callable[..., BaseProcess]
Become = Callable[..., None]
Hub = Any  # conftest's
CHECKPOINT = {"config.json": b"{}", "model.safetensors": b"weights"}
WEIGHTS, HALFWAY_BYTES = {"config.json": b"{}", "model.bin": b"weights " * 125_000}, 300_000


def cached(home: Path) -> list[str]:
    """What lies in the cache, leavings of broken downloads included."""
    return sorted(path.name for path in (home / "cache").glob("*"))


def refuse(hub: Hub, *, everybody: bool) -> None:
    """Whether S3 says 403 to whoever asks."""
    url = f"{hub.s3['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    body = b"0" if everybody else b"inf"
    plain = {"content-type": "text/plain"}  # as a form, moto would read it away
    urllib.request.urlopen(urllib.request.Request(url, body, plain), timeout=10).close()


def test_wrong_credentials_are_told_and_leave_nothing(
    make_artifact: MakeArtifact, become: Become, hub: Hub, miniml_home: Path
) -> None:
    """MLflow's 401: one sentence with the way out, no password in it, nothing half-written."""
    folder = make_artifact()
    become("anna")
    version = store.publish(folder, name="guarded")
    before = hub.objects()
    become("anna", password="not the password")
    asked: tuple[Callable[[], object], ...] = (
        lambda: store.publish(folder, name="guarded"),
        lambda: store.resolve("guarded", kind="package"),
        lambda: store.fetch(version),
        lambda: store.verify_version("guarded", kind="package"),
        lambda: store.set_alias("guarded", "champion", kind="package"),
    )
    for ask in asked:
        with pytest.raises(NotAllowed, match="MLFLOW_TRACKING_USERNAME") as caught:
            ask()
        assert "not the password" not in str(caught.value)
        assert "\n" not in str(caught.value)

    assert hub.objects() == before
    assert cached(miniml_home) == []


def test_a_bucket_that_lets_nobody_in_is_told(
    make_artifact: MakeArtifact,
    become: Become,
    hub: Hub,
    miniml_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S3's 403, to the hub or to oneself: one sentence with the way out; no version, no cache."""
    folder = make_artifact()
    for key, value in hub.s3.items():
        monkeypatch.setenv(key, value)
    upload_objects(folder, "s3://hub/direct", read_manifest(folder))
    direct = store.resolve("s3://hub/direct", kind="package")
    become("anna")
    version = store.publish(folder, name="locked")
    refuse(hub, everybody=True)
    try:
        with pytest.raises(StoreUnavailable, match="its own log says why") as publishing:
            store.publish(folder, name="locked")
        with pytest.raises(StoreUnavailable, match="is not let into its bucket") as fetching:
            store.fetch(version)
        with pytest.raises(StoreUnavailable, match="check the credentials"):
            store.fetch(direct)
    finally:
        refuse(hub, everybody=False)
    log = (hub.home / "registry" / "hub" / "server.log").read_text()

    assert "\n" not in str(publishing.value) + str(fetching.value)
    assert [version.number for version in store.list_versions(name="locked")] == [1]
    assert cached(miniml_home) == []
    assert re.search("InvalidAccessKeyId|AccessDenied|Forbidden", log)


def test_an_interrupted_upload_is_no_version_and_is_swept(  # noqa: PLR0913, PLR0917  # fixtures
    make_artifact: MakeArtifact,
    start_publisher: StartPublisher,
    become: Become,
    hub: Hub,
    wire: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line cut halfway, a publisher killed halfway: nobody sees a version; later gc sweeps all."""
    folder = make_artifact(files=WEIGHTS)
    cut = wire(HALFWAY_BYTES)
    become("anna", url=cut.url)
    with pytest.raises(StoreUnavailable, match="check MLFLOW_TRACKING_URI"):
        store.publish(folder, name="broken")
    assert cut.was_cut.is_set()
    running: list[BaseProcess] = []

    def strike() -> None:
        running[0].kill()

    killing = wire(HALFWAY_BYTES, strike)
    environment = hub.environment("anna", killing.url)
    running.append(start_publisher(folder=str(folder), name="broken", environment=environment))
    running[0].join()
    become("bob")

    assert running[0].exitcode == -signal.SIGKILL
    assert store.list_versions(name="broken") == []
    become("anna")
    version = store.publish(folder, name="broken")
    assert verify(store.fetch(version)) == verify(folder)

    kept = store.list_versions()
    monkeypatch.setattr("registry.gc.time.time", lambda now=time.time: now() + 2 * STALE_S)
    become("admin")
    swept = store.gc(keep=100)
    runs = {key.split("/")[3] for key in hub.objects() if key.startswith("hub/bytes/")}

    assert len(swept.folders) >= 2
    assert runs == {version.run_id for version in kept}
    assert store.list_versions() == kept
    assert store.gc(keep=100).folders == ()


def test_changed_objects_are_refused_and_nothing_is_cached(
    make_artifact: MakeArtifact, become: Become, hub: Hub, miniml_home: Path
) -> None:
    """An object that was changed in the bucket, or is gone, is refused by name; verify says so."""
    become("anna")
    version = store.publish(make_artifact("checkpoint", files=CHECKPOINT), name="changed")
    (place,) = {key for key in hub.objects() if version.run_id in key and "model" in key}
    hub.files.pipe_file(place, b"others!")
    become("bob")
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors was changed"):
        store.fetch(version)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors was changed"):
        store.verify_version("changed", kind="checkpoint")
    hub.files.rm_file(place)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors is missing"):
        store.fetch(version)

    assert cached(miniml_home) == []


def test_a_hub_that_falls_and_rises_loses_nothing(  # noqa: PLR0913, PLR0917  # fixtures
    make_artifact: MakeArtifact,
    start_publisher: StartPublisher,
    become: Become,
    hub: Hub,
    wire: Callable[..., Any],
    miniml_home: Path,
) -> None:
    """It falls amid an upload: one sentence. Who tries on finds it again, and all is as before."""
    folder = make_artifact(files=WEIGHTS)
    become("anna")
    before = store.list_versions()
    fetched = store.fetch(store.publish(make_artifact(), name="before"))
    become("anna", url=wire(HALFWAY_BYTES, hub.crash).url)
    with pytest.raises(StoreUnavailable, match="does not work") as caught:
        store.publish(folder, name="fallen")
    held, _ = locate("before/1", digest=fetched.name)  # as a replica that starts meanwhile
    patient = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "8", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
    environment = hub.environment("anna") | patient
    publisher = start_publisher(folder=str(folder), name="fallen", environment=environment)
    hub.start()
    publisher.join()
    become("bob")
    versions = store.list_versions()

    assert "\n" not in str(caught.value)
    assert hub.passwords["anna"] not in str(caught.value)
    assert held == fetched
    assert publisher.exitcode == 0
    assert [version.reference for version in versions] == [
        *("fallen/1", "before/1"),
        *(version.reference for version in before),
    ]
    assert verify(store.fetch(versions[0])) == verify(folder)
    assert not list(miniml_home.rglob(f"*{STAGING_SUFFIX}"))
