"""The embedded registry as an MLflow server: a page for oneself, or a hub for a team.

The server is a child process that ends with this one. Beyond this machine it always asks who is there
(`registry.access` says what they may do, `registry.hub_files` keeps what that needs); artifacts pass
through it, so a client needs its address, a name and a password, and no bucket.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO

from registry.connection import (
    create_embedded,
    embedded_uri,
    hub_folder,
    served_root,
    server_uri,
    without_password,
)
from registry.errors import CannotServe
from registry.hub_files import ADMIN, Secrets, keep_place, make_secrets, open_log, write_settings
from registry.listening import Address, raise_if_ended

_log = logging.getLogger(__name__)
_STOP_S = 10
# Clients that keep a TLS connection open would hold a server that ends for half a minute.
_UVICORN = f"--no-access-log --timeout-graceful-shutdown {_STOP_S // 2}"
_CODE = Path(__file__).parents[1]  # where `registry` is imported from, for MLflow's process
_LIBRARIES = {"flask_wtf": "to ask for passwords", "boto3": "to keep bytes in S3"}


def ui(*, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Show the registry at http://host:port on this machine, until interrupted.

    With MLFLOW_TRACKING_URI there is a page already; then its address is told and nothing started.
    Raises `CannotServe` for a host that others reach, and as `serve`.
    """
    if (uri := server_uri()) is not None:
        page = without_password(uri)
        _log.info("MLFLOW_TRACKING_URI names a server, which has its own page: %s", page)
        return
    address = Address(host=host, port=port)
    if not address.is_loopback:
        raise CannotServe(
            f"The page asks nobody who they are, and others reach {host}; "
            "use `miniml registry serve`, which asks."
        )
    serve(address)


def serve(address: Address, *, artifacts: str | None = None, auth: bool = False) -> None:
    """Serve the embedded registry at *address* until interrupted (Ctrl-C or SIGTERM).

    artifacts: s3://bucket/prefix for what others publish. auth: ask for passwords on this machine,
    too. Raises `AddressTaken`, `CannotServe`, what a wrong bucket raises, and `StoreUnavailable`
    when MLflow's server does not start.
    """
    if server_uri() is not None:
        raise CannotServe("MLFLOW_TRACKING_URI names another registry; unset it to serve this one.")
    asks = auth or not address.is_loopback
    _require_libraries(asks=asks, objects=bool(artifacts) or served_root().startswith("s3:"))
    address.require_free()
    create_embedded()
    place = keep_place(artifacts)
    secrets = make_secrets() if asks else None
    environment = _environment(secrets, address)
    with (
        open_log() as output,
        _interruptible(),
        _server(address, place, environment, output) as server,
    ):
        while not address.answers():
            raise_if_ended(server, output)
        _tell(address, secrets)
        server.wait()
        raise_if_ended(server, output)


def _require_libraries(*, asks: bool, objects: bool) -> None:
    needed = (*(("flask_wtf",) if asks else ()), *(("boto3",) if objects else ()))
    for library in needed:
        if find_spec(library) is None:
            raise CannotServe(
                f"{library} is missing {_LIBRARIES[library]}: pip install 'miniml[hub]'."
            )


def _environment(secrets: Secrets | None, address: Address) -> dict[str, str]:
    """What MLflow's server is told; here and not in its arguments, which every account can read."""
    how = shlex.split(os.environ.get("MLFLOW_UVICORN_OPTS", _UVICORN))
    if address.certificate is not None:
        how += ["--ssl-certfile", str(address.certificate.absolute())]
    told = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job runner for features not used here
        "MLFLOW_ENABLE_AI_GATEWAY": "false",  # calls of language models, not used either
        "MLFLOW_UVICORN_OPTS": shlex.join(how),
    }
    if secrets is None:
        return told
    path = (str(_CODE), os.environ.get("PYTHONPATH", ""))
    return told | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "MLFLOW_AUTH_CONFIG_PATH": str(write_settings()),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.admin_password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.secret_key,
        # Who comes by a name that a foreign page made up has no password for it, so names need no
        # list; but a page elsewhere may not write with the password that the browser holds.
        "MLFLOW_SERVER_ALLOWED_HOSTS": os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "*"),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": os.environ.get(
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", address.url
        ),
    }


def _tell(address: Address, secrets: Secrets | None) -> None:
    _log.info("The registry is at %s; Ctrl-C stops it.", address.url)
    if secrets is None:
        return
    if secrets.are_new and sys.stderr.isatty():  # a terminal's scrollback, never a log
        sys.stderr.write(f"The password of {ADMIN}, told this once: {secrets.admin_password}\n")
    _log.info("The password of %s, who adds names, is in %s.", ADMIN, secrets.path)
    if address.url.startswith("http://"):
        _log.info("Passwords travel unencrypted: --certificate, or TLS in front, ends that.")
    _log.info("On another machine, by a name of `miniml registry user add NAME`:")
    _log.info("  export MLFLOW_TRACKING_URI=%s", address.url)
    _log.info("  export MLFLOW_TRACKING_USERNAME=NAME MLFLOW_TRACKING_PASSWORD=...")


@contextmanager
def _server(
    address: Address, place: str, environment: Mapping[str, str], output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """The running server, in a process group of its own, so that its workers end with it."""
    store = ["--backend-store-uri", embedded_uri(), "--artifacts-destination", place]
    # One worker: SQLite has one writer, and a password that was changed is known at once.
    where = ["--host", address.host, "--port", str(address.port), "--workers", "1"]
    app = ["--app-name", "basic-auth"] if "MLFLOW_AUTH_CONFIG_PATH" in environment else []
    process = subprocess.Popen(  # noqa: S603  # no shell; host and port are one argument each
        [sys.executable, "-m", "mlflow", "server", *store, *where, *app],
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
        cwd=hub_folder(),  # not where the user is: `python -m` would import what lies there
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM becomes KeyboardInterrupt, so that the server is stopped on that way out too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
