"""Laws of what a hub keeps and whom it lets do what, without starting one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import store
from registry.access import reads, removes
from registry.backend import Backend
from registry.connection import hub_folder, served_root
from registry.errors import BadReference, CannotServe, NotFound, StoreUnavailable
from registry.hub_files import keep_place, make_secrets, write_settings
from registry.listening import Address

S3 = tuple[dict[str, str], Any]
API = "/api/2.0/mlflow"


@pytest.fixture
def _bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket `hub`, named by the environment as a user would."""
    for key, value in s3[0].items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "registry.example.com"])
def test_nothing_that_others_reach_goes_unasked(host: str) -> None:
    """The page without passwords is refused beyond this machine, before anything is made."""
    with pytest.raises(CannotServe, match="miniml registry serve"):
        store.ui(host=host)

    assert not hub_folder().parent.exists()


def test_a_registry_is_served_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLFLOW_TRACKING_URI names another registry, which one is meant is asked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    with pytest.raises(CannotServe, match="unset it"):
        store.serve(Address())


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, *, alone: bool) -> None:
    """What cannot be told to be this machine alone is taken for more."""
    assert Address(host=host).is_loopback is alone


def test_an_address_can_be_that_of_the_end_in_front() -> None:
    """A name gets scheme and port, an IPv6 address brackets; a URL is one already."""
    assert Address(host="hub").url == "http://hub:5000"
    assert Address(host="::1", port=1).url == "http://[::1]:1"
    assert Address(host="0.0.0.0").url == f"http://{socket.gethostname()}:5000"
    assert Address(certificate=Path("hub.pem")).url == "https://127.0.0.1:5000"
    assert Address(name="https://hub.example.com/").url == "https://hub.example.com"


def test_a_certificate_without_its_key_is_told(tmp_path: Path) -> None:
    """What TLS cannot begin with is refused before anything is started."""
    for content in (None, "-----BEGIN CERTIFICATE-----"):
        path = tmp_path / "hub.pem"
        if content is not None:
            path.write_text(content)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(CannotServe, match=r"hub\.pem is no PEM file"):
            Address(port=port, certificate=path).require_free()


def test_secrets_are_made_once_and_are_their_owners() -> None:
    """A second start finds the first one's; no file of it can be read by others, no repr shows it."""
    first, second = make_secrets(), make_secrets()

    assert first.are_new
    assert not second.are_new
    assert (first.admin_password, first.secret_key) == (second.admin_password, second.secret_key)
    assert first.admin_password != first.secret_key
    assert first.path.stat().st_mode & 0o077 == 0
    assert hub_folder().stat().st_mode & 0o077 == 0
    assert first.admin_password not in repr(first)
    assert first.admin_password not in write_settings().read_text()


def test_secrets_that_are_gone_are_not_made_anew() -> None:
    """MLflow keeps the first password; another one would let nobody in, so it is told."""
    path = make_secrets().path
    (hub_folder() / "users.db").write_bytes(b"users")
    path.unlink()
    with pytest.raises(CannotServe, match="bring it back"):
        make_secrets()
    path.write_text("{")
    with pytest.raises(CannotServe, match="bring it back"):
        make_secrets()


@pytest.mark.usefixtures("_bucket")
def test_bytes_stay_where_they_were_put(
    store_home: Path, make_artifact: Callable[..., Path]
) -> None:
    """The place of a hub is chosen once, and only where nothing lies elsewhere already."""
    with pytest.raises(NotFound, match="no bucket 'nowhere'"):
        keep_place("s3://nowhere/at-all")
    with pytest.raises(BadReference, match="s3://bucket/prefix"):
        keep_place("/srv/artifacts")
    assert keep_place(None) == str(store_home / "registry" / "artifacts") == served_root()
    assert keep_place("s3://hub/elsewhere/") == "s3://hub/elsewhere"
    assert keep_place(None) == "s3://hub/elsewhere" == served_root()
    with pytest.raises(CannotServe, match="s3://hub/elsewhere"):
        keep_place("s3://hub/another")
    with pytest.raises(StoreUnavailable, match="publish through it"):
        store.publish(make_artifact(), name="beside")


@pytest.mark.usefixtures("_bucket")
def test_what_was_published_here_is_not_left_behind(store_home: Path) -> None:
    """A home whose bytes lie in it does not become a hub whose bytes lie in a bucket."""
    (store_home / "registry" / "artifacts" / "run").mkdir(parents=True)
    with pytest.raises(CannotServe, match="push into it"):
        keep_place("s3://hub/late")

    assert served_root() == str(store_home / "registry" / "artifacts")


def test_a_place_is_told_as_this_process_reaches_it(tmp_path: Path, store_home: Path) -> None:
    """Embedded, bytes are found wherever the home is; through a hub, also those beside it."""
    embedded = Backend(client=None, uri="sqlite:///x", root=store_home / "registry" / "artifacts")
    remote = Backend(client=None, uri="http://hub:5000", root=None)
    gone, here = "file:///moved/away/run/artifacts", tmp_path.as_uri()

    assert embedded.place(gone, "run") == str(store_home / "registry/artifacts/run/artifacts")
    assert embedded.place("mlflow-artifacts:/1/run/artifacts", "run") == str(
        store_home / "registry/artifacts/1/run/artifacts"
    )
    assert remote.place(gone, "run") == "mlflow-artifacts:/run/artifacts"
    for unchanged in (here, "s3://bucket/run/artifacts", "mlflow-artifacts:/1/run/artifacts"):
        assert remote.place(unchanged, "run") == unchanged


@pytest.mark.parametrize(
    ("method", "path", "rights"),
    [
        ("GET", f"{API}/registered-models/search", "read"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/model.onnx", "read"),
        ("POST", f"{API}/runs/search", "read"),
        ("POST", f"{API}/experiments/search", "read"),
        ("POST", "/graphql", "read"),
        ("PATCH", f"{API}/users/update-password", "read"),
        ("POST", f"{API}/experiments/create", "publish"),
        ("POST", f"{API}/registered-models/create", "publish"),
        ("POST", f"{API}/registered-models/alias", "publish"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/search", "publish"),
        ("PATCH", f"{API}/users/update-admin", "publish"),  # MLflow's own rule refuses it
        ("DELETE", f"{API}/registered-models/alias", "manage"),
        ("DELETE", f"{API}/model-versions/delete", "manage"),
        ("POST", f"{API}/runs/delete", "manage"),
        ("POST", f"{API}/registered-models/rename", "manage"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/run", "manage"),
    ],
)
def test_calls_want_the_right_they_need(method: str, path: str, rights: str) -> None:
    """What asks is for readers, what makes for publishers, what removes or renames for managers."""
    found = "read" if reads(method, path) else "manage" if removes(method, path) else "publish"

    assert found == rights
