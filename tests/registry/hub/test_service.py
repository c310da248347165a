"""Laws of a hub that works: a real MLflow server with TLS and passwords, a real S3 API behind it.

What it does when things go wrong is in test_service_faults.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from registry import store, users
from registry.artifact import Kind, verify
from registry.errors import BadReference, NotAllowed, NotFound

MakeArtifact = Callable[..., Path]
StartPublisher = Callable[..., BaseProcess]
Become = Callable[..., None]
Hub = Any  # conftest's
CONTENT: dict[Kind, dict[str, bytes]] = {
    "dataset": {"dataset.json": b"{}", "train/rows 1.arrow": b"rows"},
    "checkpoint": {"config.json": b"{}", "model.safetensors": b"weights"},
    "package": {"config.json": b"{}", "deep/er/model.onnx": b"graph"},
}


@pytest.mark.parametrize("kind", CONTENT)
def test_one_machine_publishes_and_another_fetches(  # noqa: PLR0913, PLR0917  # fixtures
    make_artifact: MakeArtifact,
    start_publisher: StartPublisher,
    become: Become,
    hub: Hub,
    tmp_path: Path,
    kind: Kind,
) -> None:
    """What one home publishes in its process, another resolves and fetches, verified, by its rights."""
    folder = make_artifact(kind, files=CONTENT[kind], lineage={"source": "rows.csv"})
    publisher = start_publisher(
        folder=str(folder), name="shared", home=str(tmp_path), environment=hub.environment("anna")
    )
    publisher.join()
    become("bob")
    version = store.resolve("shared@newest", kind=kind)
    fetched = store.fetch(version)

    assert publisher.exitcode == 0
    assert verify(fetched) == verify(folder)
    assert version.uri.startswith("mlflow-artifacts:")
    assert store.verify_version("shared", kind=kind) == version
    assert len([key for key in hub.objects() if version.run_id in key]) == len(CONTENT[kind]) + 1


def test_publishers_at_once_each_get_a_number(
    make_artifact: MakeArtifact, start_publisher: StartPublisher, become: Become, hub: Hub
) -> None:
    """Processes that begin at once lose nothing, and the alias is one version's."""
    barrier = multiprocessing.get_context("forkserver").Barrier(3)
    running = [
        start_publisher(
            folder=str(make_artifact(files={"who": str(who).encode()})),
            name="crowd",
            times=2,
            barrier=barrier,
            environment=hub.environment("anna"),
        )
        for who in range(3)
    ]
    for process in running:
        process.join()
    become("bob")
    versions = store.list_versions(name="crowd")
    published = sorted((store.fetch(version) / "who").read_text() for version in versions)

    assert [process.exitcode for process in running] == [0, 0, 0]
    assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5, 6]
    assert published == ["0", "0", "1", "1", "2", "2"]
    assert sum("newest" in version.aliases for version in versions) == 1


def test_rights_hold_whoever_asks_and_however(
    make_artifact: MakeArtifact, become: Become, hub: Hub
) -> None:
    """Who reads makes nothing, not even a name of their own; who publishes removes nothing."""
    client = MlflowClient(hub.url)
    become("anna")
    store.publish(make_artifact(), name="kept")
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_registered_model("kept")
    become("bob")
    before = store.list_versions()
    with pytest.raises(NotAllowed, match="does not let bob"):
        store.publish(make_artifact(), name="mine")
    with pytest.raises(NotAllowed, match="does not let bob"):
        store.set_alias("kept", "champion", kind="package")
    for make in (client.create_experiment, client.create_registered_model):
        with pytest.raises(MlflowException, match="Permission denied"):
            make("mine")

    assert store.list_versions() == before


def test_users_come_and_go(become: Become, hub: Hub) -> None:
    """Only an administrator adds a user; who was removed, or has a new password, is not let in."""
    become("admin")
    hub.passwords["carl"] = users.add_user("carl", may="read").password
    assert ("carl", "read") in {(user.name, user.may) for user in users.list_users()}
    with pytest.raises(BadReference, match="--replace"):
        users.add_user("carl", may="manage")
    become("carl")
    store.list_versions()
    with pytest.raises(NotAllowed, match="does not let carl"):
        users.add_user("dora", may="manage")
    become("admin")
    again = users.add_user("carl", may="publish", replace=True)
    assert ("carl", "publish") in {(user.name, user.may) for user in users.list_users()}
    become("carl")
    with pytest.raises(NotAllowed, match="MLFLOW_TRACKING_PASSWORD"):
        store.list_versions()
    become("admin")
    users.remove_user("carl")
    with pytest.raises(NotFound, match="no user 'carl'; there are: admin, anna, bob"):
        users.remove_user("carl")
    become("carl", password=again.password)

    with pytest.raises(NotAllowed, match="MLFLOW_TRACKING_PASSWORD"):
        store.list_versions()


def test_no_password_is_where_others_read(hub: Hub) -> None:
    """Neither arguments, nor what it says, nor its log hold a secret; its file is its owner's alone."""
    kept = hub.home / "registry" / "hub"
    secrets = json.loads((kept / "secrets.json").read_text()).values()
    root = psutil.Process(hub.process.pid)
    arguments = [line for each in (root, *root.children(recursive=True)) for line in each.cmdline()]
    files = [(kept / name).read_text() for name in ("server.log", "access.ini")]
    said = [*arguments, *hub.told, *files]

    assert [line for line in said for secret in secrets if secret in line] == []
    assert (kept / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (kept / "server.log").stat().st_mode & 0o777 == 0o600
    assert any(f"export MLFLOW_TRACKING_URI={hub.url}" in line for line in hub.told)


def miniml(hub: Hub, name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command as *name* would run it, and what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "miniml", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **hub.environment(name), **more},
    )


def test_the_command_brings_folders_in_and_out(
    make_artifact: MakeArtifact, hub: Hub, tmp_path: Path
) -> None:
    """`push` and `fetch` give the same bytes back; each fault is one sentence, and changes nothing."""
    folder, output = make_artifact("dataset"), tmp_path / "out"
    pushed = miniml(hub, "anna", "registry", "push", str(folder), "--name", "cli", "--json")
    fetch = ("registry", "fetch", "cli", "--kind", "dataset", "--output", str(output))
    fetched = miniml(hub, "bob", *fetch, "--json")

    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["reference"] == "cli/1"
    assert fetched.returncode == 0, fetched.stderr
    assert verify(output) == verify(folder)
    for failed, words in (
        (miniml(hub, "bob", *fetch), "already"),
        (miniml(hub, "bob", "registry", "push", str(folder), "--name", "no"), "does not let bob"),
        (miniml(hub, "bob", "registry", "list", MLFLOW_TRACKING_PASSWORD="wrong"), "USERNAME"),
    ):
        message = " ".join(failed.stderr.split())
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert words in message
        assert message.count("Error:") == 1
        assert "Traceback" not in message
        assert hub.passwords["bob"] not in message
