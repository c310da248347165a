"""`miniml serve`: a local Ray, the application on it, until a signal; everything is stopped again.

The environment that Ray reads at import is set here, before Ray is imported, and only where the
caller has not set it: a variable that is already there wins.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from serving.client import Client
from serving.errors import PackageError, PortInUse
from serving.lanes import usable_cores
from serving.locate import locate
from serving.options import ServeOptions
from serving.settings import ServeSettings

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
_OBJECT_STORE_BYTES = 80 * 2**20  # answers never pass through it; Ray's least is 75 MiB
_APPLICATION = "miniml"

# Measured per request on 2 cores: Ray's Python proxy 7.0 ms of CPU, HAProxy 0.6 ms, with the flags
# below and a raw ASGI app 0.23 ms.
_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Nothing else routes to a local replica, so there is no balancer to wait for at shut-down.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
_ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM, then stop everything this started.

    Raises `PortInUse`, `PackageError`, or a registry error before anything is started.
    """
    refuse_taken_port(options.host, options.port)
    set_environment(haproxy=options.haproxy)
    with Console(stderr=True).status("Starting"), _stopping() as stop:
        folder, digest = locate(options.package)
        with _ray(options):
            _run(options, folder)
            url = f"http://{_reachable(options.host)}:{options.port}"
            Client(url).wait_ready(timeout_s=_START_TIMEOUT_S, alive=lambda: not stop.is_set())
            _log.info("Serving %s (package %s) at %s", options.package, digest[:12], url)
            _log.info("Page and contract: %s/docs   Stop with Ctrl-C", url)
            stop.wait()
            _log.info("Stopping: answering what was accepted")


def refuse_taken_port(host: str, port: int) -> None:
    """Raise `PortInUse` when somebody listens at *host*:*port* already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free, one that is listened on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on {host} cannot be used ({error.strerror});"
                " stop who listens there or choose another --port."
            ) from error


def set_environment(*, haproxy: bool) -> None:
    """Set what Ray reads at import. A token of our own keeps Ray's ports closed to others."""
    for name, value in (_ALWAYS | (_HAPROXY if haproxy else {})).items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # In the environment, not in ~/.ray: the home folder may be read-only.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ray(options: ServeOptions) -> Iterator[None]:
    """A Ray of our own on this machine, and Serve on it, listening on the options' address."""
    import ray
    from ray import serve as ray_serve

    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        num_cpus=max(usable_cores(), (options.lanes or 1) * (options.threads or 1)),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        for number, handler in handlers.items():  # Ray puts its own SIGTERM handler in
            signal.signal(number, handler)
        ray_serve.start(http_options={"host": options.host, "port": options.port})
        yield
    finally:
        # Serve first: it stops HAProxy, which would survive Ray and keep the port.
        ray_serve.shutdown()
        ray.shutdown()  # type: ignore[no-untyped-call]


def _run(options: ServeOptions, folder: Path) -> None:
    from ray import serve as ray_serve

    from serving.app import build  # imports Ray, which reads the environment set before

    settings = ServeSettings(
        package=str(folder),
        lanes=options.lanes,
        threads=options.threads,
        max_queue_ms=options.max_queue_ms,
    )
    try:
        ray_serve.run(build(settings), name=_APPLICATION, route_prefix="/")
    except RuntimeError as error:  # Ray's word for a replica whose constructor raised
        raise PackageError(f"The replica did not start: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    """The replica's own message, which Ray wraps in its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if "Error: " in line]
    return lines[-1] if lines else str(error)


def _reachable(host: str) -> str:
    """An address to ask, for a server that listens on *host*."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
