"""A hub as a team would have it: TLS, passwords, bytes in S3; and a line to it that breaks."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import ThreadedMotoServer

from registry import users

_PIECE_BYTES = 1 << 16


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[dict[str, str], Any]]:
    """The environment that names an S3 server, and its file system with the bucket `hub` in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    files = fsspec.filesystem(
        "s3",
        key="test",
        secret="test",
        endpoint_url=f"http://{host}:{port}",
        use_listings_cache=False,
    )
    files.mkdir("hub")
    yield environment, files
    server.stop()


def _certificate(path: Path) -> Path:
    """A certificate of 127.0.0.1 for a day, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now, public = datetime.now(UTC), key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    for (
        extension
    ) in (  # the keys' names: OpenSSL wants them where it is strict, as from Python 3.13 on
        x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
        x509.SubjectKeyIdentifier.from_public_key(public),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(public),
    ):
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(key, hashes.SHA256())
    hidden = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(hidden + made.public_bytes(serialization.Encoding.PEM))
    return path


class Hub:
    """`miniml registry serve` in a process of its own: passwords and TLS on, bytes in S3."""

    def __init__(self, home: Path, s3: tuple[dict[str, str], Any]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.home, (self.s3, self.files) = home, s3
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = _certificate(home / "hub.pem")
        self.passwords: dict[str, str] = {}
        self.told: list[str] = []

    def start(self) -> None:
        """Returns when it has said all that it says."""
        port, place = ("--port", str(self.port)), ("--artifacts", "s3://hub/bytes")
        arguments = [*port, *place, "--auth", "--certificate", str(self.certificate)]
        clean = {key: value for key, value in os.environ.items() if "MLFLOW_TRACKING" not in key}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "miniml", "registry", "serve", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=clean | self.s3 | {"MINIML_HOME": str(self.home)},
        )
        assert self.process.stderr is not None
        self.told = []
        for line in self.process.stderr:
            self.told.append(line)
            if "MLFLOW_TRACKING_USERNAME" in line:
                return
        pytest.fail("".join(self.told))

    def crash(self) -> None:
        """MLflow's processes end at once, as those of a machine without power."""
        (server,) = psutil.Process(self.process.pid).children()
        os.killpg(server.pid, signal.SIGKILL)
        self.process.wait()

    def environment(self, name: str, url: str = "") -> dict[str, str]:
        """What *name* exports to publish and fetch here."""
        return {
            "MLFLOW_TRACKING_URI": url or self.url,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": self.passwords[name],
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.certificate),
        }

    def objects(self) -> set[str]:
        """Every key of the bucket."""
        return set(self.files.find("hub"))


@pytest.fixture(scope="session")
def hub(
    tmp_path_factory: pytest.TempPathFactory,
    empty_database: Path,
    s3: tuple[dict[str, str], Any],
) -> Iterator[Hub]:
    """A hub that knows admin, anna who may publish, and bob who may read."""
    home = tmp_path_factory.mktemp("hub")
    (home / "registry").mkdir()
    shutil.copyfile(empty_database, home / "registry" / "mlflow.db")
    hub = Hub(home, s3)
    hub.start()
    secrets = home / "registry" / "hub" / "secrets.json"
    hub.passwords["admin"] = json.loads(secrets.read_text())["password"]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in hub.environment("admin").items():
            patch.setenv(key, value)
        hub.passwords["anna"] = users.add_user("anna", may="publish").password
        hub.passwords["bob"] = users.add_user("bob", may="read").password
    yield hub
    hub.process.send_signal(signal.SIGTERM)
    assert hub.process.wait(timeout=30) == 130
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", hub.port)):
        pass


@pytest.fixture
def become(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`become(name)`: from now on this process asks the hub by that name, and once."""

    def switch(name: str, *, password: str | None = None, url: str = "") -> None:
        for key, value in hub.environment(name, url).items():
            monkeypatch.setenv(key, value)
        if password is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    return switch


class Wire(socketserver.ThreadingTCPServer):
    """A TCP proxy that does something and cuts, once so many bytes went to the server on one line."""

    daemon_threads = True

    def __init__(self, port: int, *, after_bytes: int, then: Callable[[], object]) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.port, self.after_bytes, self.then = port, after_bytes, then
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.was_cut = threading.Event()


class _Line(socketserver.BaseRequestHandler):
    server: Wire

    def handle(self) -> None:
        onward = socket.create_connection(("127.0.0.1", self.server.port))
        threading.Thread(target=_pump, args=(onward, self.request), daemon=True).start()
        if _pump(self.request, onward, self.server.after_bytes) > self.server.after_bytes:
            self.server.then()
            self.server.was_cut.set()
        for end in (onward, self.request):  # not close, which wakes nobody who reads
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket, limit_bytes: float = math.inf) -> int:
    """How many bytes went over before the source ended, an end broke, or it was more than *limit*."""
    passed = 0
    with suppress(OSError):
        while passed <= limit_bytes and (piece := source.recv(_PIECE_BYTES)):
            target.sendall(piece)
            passed += len(piece)
        if passed <= limit_bytes:
            target.shutdown(socket.SHUT_WR)
    return passed


@pytest.fixture
def wire(hub: Hub) -> Iterator[Callable[..., Wire]]:
    """`wire(after_bytes, then)`: a way to the hub that breaks; `then` may be nothing."""
    strung: list[Wire] = []

    def string(after_bytes: int, then: Callable[[], object] = lambda: None) -> Wire:
        made = Wire(hub.port, after_bytes=after_bytes, then=then)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        strung.append(made)
        return made

    yield string
    for each in strung:
        each.shutdown()
        each.server_close()
