"""What the image for serving holds is enough to find a package in a registry and to fetch it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from registry import store
from registry.artifact import read_manifest, verify
from registry.transfer import upload_objects

ROOT = Path(__file__).parent.parent.parent
LOCK = ROOT / "deploy/docker/requirements-serve.lock"
# Calls `serving.locate` where no module of a distribution that the image lacks can be imported.
LOCATE = """
import re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

held = {plain(name) for name in sys.argv.pop(1).split(",")} | {"miniml"}
lacking = {
    module for module, names in packages_distributions().items() if not held & set(map(plain, names))
}

class Held:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in lacking else PathFinder.find_spec(name, path, target)

    def find_distributions(self, *context):
        found = PathFinder.find_distributions(*context)
        return (each for each in found if plain(each.name) in held)

assert {"pandas", "sqlalchemy", "torch"} <= lacking
sys.meta_path[:] = [Held() if each is PathFinder else each for each in sys.meta_path]
from serving.locate import locate
reference, digest = sys.argv[1:]
print(locate(reference, digest=digest)[0])
"""
Locate = Callable[..., str]


@pytest.fixture
def locate(tmp_path: Path) -> Locate:
    """What the image says of a reference; its home is another than the publisher's."""
    held = re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)

    def ask(reference: str, digest: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", LOCATE, ",".join(held), reference, digest],
            cwd=tmp_path,
            env=os.environ
            | {"MINIML_HOME": str(tmp_path / "image"), "PYTHONPATH": str(ROOT)}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.stdout if done.returncode == 0 else done.stderr).strip()

    return ask


@pytest.fixture
def registry_server(tmp_path: Path) -> Iterator[str]:
    """The address of a registry on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "miniml", "registry", "ui", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"MINIML_HOME": str(tmp_path / "server")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while f":{port}" not in (said := process.stderr.readline()):
        assert said, "the registry did not start"
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_a_package_comes_from_a_registry_over_http(
    registry_server: str, package: Path, locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its alias, verified; another digest is refused, and so is a name that nobody published."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry_server)
    version = store.publish(package, name="reviews", alias="champion")

    folder = Path(locate("models:/reviews@champion", version.digest))
    assert verify(folder) == verify(package)
    assert "not 000000000000 as was asked for" in locate("reviews@champion", "0" * 64)
    assert "No package named 'others'" in locate("others@champion", "1" * 64)


def test_a_package_comes_from_s3(package: Path, locate: Locate) -> None:
    """By its place, verified, with the credentials of the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        told = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            import fsspec

            fsspec.filesystem("s3", skip_instance_cache=True).mkdir("models")
            upload_objects(package, "s3://models/reviews", read_manifest(package))
        digest = verify(package).digest

        assert verify(Path(locate("s3://models/reviews", digest, **told))) == verify(package)
    finally:
        server.stop()
