"""`miniml serve`: a local Ray, the application on it, until a signal; everything is stopped again.

The environment that Ray reads at import is set here, before Ray is imported, and only where the
caller has not set it: a variable that is already there wins.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from serving.client import Client, RemoteError
from serving.errors import PackageError, PortInUse, ServingError
from serving.lanes import usable_cores
from serving.locate import locate
from serving.options import ServeOptions
from serving.settings import ServeSettings

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
_OBJECT_STORE_BYTES = 80 * 2**20  # answers never pass through it; Ray's least is 75 MiB
_APPLICATION = "miniml"
_LAST_PORT = 65535
_ORPHANS_END_S = 5.0
_ORPHANS_POLL_S = 0.05
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# Ray puts sockets about 70 bytes below its folder; the kernel allows 107 in all.
_LONGEST_RAY_FOLDER_BYTES = 35

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
# HAProxy's own pages and Ray's spare proxy listen on fixed ports, so that a second server on one
# machine would fail to start; they are given free ones.
_HAPROXY_PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
)
_ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray runs workers at nice 15: on shared cores everybody else would go first.
    "RAY_worker_niceness": "0",
    # Ray gives a proxy three times 5 s to come up and then gives the whole start up; seen on 2 cores
    # that trained beside it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
}


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM, then stop everything this started.

    Raises `PortInUse`, `PackageError`, or a registry error before anything is started.
    """
    refuse_taken_port(options.host, options.port)
    set_environment(haproxy=options.haproxy)
    with _stopping() as stop:
        try:
            with Console(stderr=True).status("Starting") as status:
                folder, digest = locate(options.package)
                with _no_orphans(), _ray(options, stop):
                    url = _start(options, folder, stop)
                    status.stop()
                    _log.info("Serving %s (package %s) at %s", options.package, digest[:12], url)
                    _log.info("Page and contract: %s/docs   Stop with Ctrl-C", url)
                    stop.wait()
                    _log.info("Stopping: answering what was accepted")
        except _StoppedEarlyError:
            _log.info("Stopped before it was ready")


class _StoppedEarlyError(Exception):
    """A signal came while the server was starting."""


def refuse_taken_port(host: str, port: int) -> None:
    """Raise `PortInUse` when somebody listens at *host*:*port* already."""
    if not 0 < port <= _LAST_PORT:
        raise PortInUse(f"There is no port {port}; choose a --port from 1 to {_LAST_PORT}.")
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
    if haproxy:
        for name, port in zip(_HAPROXY_PORTS, _free_ports(len(_HAPROXY_PORTS)), strict=True):
            os.environ.setdefault(name, str(port))
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # In the environment, not in ~/.ray: the home folder may be read-only.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens at now; all different, as they are held together."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def ray_folder() -> str | None:
    """A short folder for Ray's sockets when its default is too deep for the kernel, else None."""
    default = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(default)) <= _LONGEST_RAY_FOLDER_BYTES:
        return None
    return f"/tmp/ray-{os.getuid()}"  # noqa: S108 - a name of our own would be no shorter


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
def _no_orphans() -> Iterator[None]:
    """End every process that was started inside and is still there at the end.

    When a service manager signals the whole group, Ray's own processes end before they have ended
    theirs: HAProxy would live on and keep the port. As a subreaper this process inherits them.
    """
    before = _children()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        deadline_s = time.monotonic() + _ORPHANS_END_S
        # Again and again: whoever ends leaves us its own children.
        while left := _children() - before:
            late = time.monotonic() > deadline_s
            for pid in left:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(_ORPHANS_POLL_S)


def _children() -> set[int]:
    """Process ids of this process's children; none where the kernel does not list them."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@contextmanager
def _ray(options: ServeOptions, stop: threading.Event) -> Iterator[None]:
    """A Ray of our own on this machine, and Serve on it, listening on the options' address."""
    import ray as untyped_ray
    from ray import serve as untyped_serve

    ray: Any = untyped_ray
    ray_serve: Any = untyped_serve
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Not on this thread: there Ray would put in its own SIGTERM handler, which leaves its start half
    # done. The thread must stay: the kernel ends Ray's processes with the thread that started them.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray") as starter:
        start = partial(
            ray.init,
            address="local",  # never a cluster that RAY_ADDRESS names or that runs here already
            num_cpus=max(usable_cores(), (options.lanes or 1) * (options.threads or 1)),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=ray_folder(),
        )
        try:
            starter.submit(start).result()
            for number, handler in handlers.items():  # Ray's own, below Python's, would abort
                signal.signal(number, handler)
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            _go_on_unless(stop)
            _listen(options)
            yield
        finally:
            with redirect_stdout(io.StringIO()):  # there Ray calls its controller's end a failure
                # Serve first: it stops HAProxy, which would survive Ray and keep the port.
                if ray.is_initialized():  # else Serve would start a Ray to look for itself
                    ray_serve.shutdown()
                ray.shutdown()


def _listen(options: ServeOptions) -> None:
    """Start Serve's proxy at the options' address."""
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    try:
        ray_serve.start(http_options={"host": options.host, "port": options.port})
    except RayError as error:
        raise ServingError(
            "Ray Serve did not come up; is the machine overloaded?",
            hint="Try again when it is quieter.",
        ) from error


def _start(options: ServeOptions, folder: Path, stop: threading.Event) -> str:
    """Deploy, and return the URL once a request was answered there."""
    _go_on_unless(stop)
    _run(options, folder)
    _go_on_unless(stop)
    url = f"http://{_reachable(options.host)}:{options.port}"
    with Client(url) as client:
        try:
            client.wait_ready(timeout_s=_START_TIMEOUT_S, alive=lambda: not stop.is_set())
        except RemoteError:
            _go_on_unless(stop)
            raise
    return url


def _go_on_unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise _StoppedEarlyError


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
        deployments = ray_serve.status().applications[_APPLICATION].deployments.values()
        told = "\n".join([str(error), *(deployment.message for deployment in deployments)])
        raise PackageError(f"The replica did not start: {_last_line(told)}") from error


def _last_line(told: str) -> str:
    """The replica's own message, which Ray wraps in its traceback."""
    lines = [line.strip() for line in told.splitlines() if "Error: " in line]
    return lines[-1].partition("Error: ")[2] if lines else told


def _reachable(host: str) -> str:
    """An address to ask, for a server that listens on *host*."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
