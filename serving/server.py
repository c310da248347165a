"""`miniml serve`: a local Ray, the application on it, until a signal; everything is stopped again.

Or, with --write-config, a file from which Ray starts the same application itself.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from serving.apart import apart
from serving.canonical import open_canonicalizer
from serving.client import Client, RemoteError
from serving.deploy_file import APPLICATION, write_deploy_file
from serving.draining import drain_all
from serving.environment import set_environment, without_data_frames
from serving.errors import PackageError, PortInUse, ServingError
from serving.gpu import gpus_for
from serving.lanes import usable_cores
from serving.locate import FETCH_S, locate
from serving.observing.log_file import STANDARD_OUTPUT, open_sink
from serving.observing.log_relay import relayed
from serving.options import ServeOptions
from serving.orphans import no_orphans
from serving.own_ray import own_ray
from serving.package import read_config
from serving.rollout.starting import first_wanted
from serving.rollout.wanted import WantedModel
from serving.settings import ServeSettings, most_replicas, settings_for

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
_LAST_PORT = 65535


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM, then stop everything this started; or write a config file.

    Raises `PortInUse`, `PackageError`, or a registry error before anything is started.
    """
    if (path := options.write_config) is not None:
        settings = write_deploy_file(options, path)
        _log.info("Wrote %s, which serves %s; its head says how", path, settings.package)
        return
    _refuse_taken_ports(options)
    set_environment(haproxy=options.haproxy, one_machine=True)
    with _stopping() as stop:
        try:
            with Console(stderr=True).status("Starting") as status:
                go_on = partial(_go_on_unless, stop)
                settings, models = _resolved_apart(options, go_on)
                config = read_config(Path(settings.package))
                open_canonicalizer(config.canonicalizer, allow_code=settings.allow_code)
                gpus = gpus_for(config, settings.device, settings.gpus)
                refuse_too_many_replicas(options)
                without_data_frames()
                with _logging(settings) as settings, no_orphans(), own_ray(options, go_on):
                    url = _start(options, settings, gpus, stop)
                    status.stop()
                    _tell(options, models, url)
                    stop.wait()
                    drain_all(APPLICATION)
        except _StoppedEarlyError:
            _log.info("Stopped before it was ready")


def _resolved_apart(
    options: ServeOptions, go_on: Callable[[], None]
) -> tuple[ServeSettings, tuple[WantedModel, ...]]:
    """As `_resolved`, so that MLflow does not stay with this process; *go_on* raises to give it up."""
    name = f"Finding {options.package}"
    return apart(partial(_resolved, options), name, timeout_s=FETCH_S, unless=go_on)


def _resolved(options: ServeOptions) -> tuple[ServeSettings, tuple[WantedModel, ...]]:
    """What the application is told, and the models that it begins with."""
    folder, digest = locate(options.package)
    settings = settings_for(options, package=str(folder), digest=digest)
    wanted = first_wanted(read_config(folder).name, str(folder), digest, settings)
    return settings, wanted.models


def _tell(options: ServeOptions, models: Sequence[WantedModel], url: str) -> None:
    """Say what is served, and where."""
    first, *others = models
    _log.info("Serving %s (package %s) at %s", options.package, first.digest[:12], url)
    for other in others:
        _log.info("When asked for by name: %s (%s)", other.name, other.digest[:12])
    if options.grpc_port is not None:
        _log.info("gRPC: %s:%d", _reachable(options.host), options.grpc_port)
    _log.info("Page and contract: %s/docs   Stop with Ctrl-C", url)


class _StoppedEarlyError(Exception):
    """A signal came while the server was starting."""


def _refuse_taken_ports(options: ServeOptions) -> None:
    refuse_taken_port(options.host, options.port)
    if options.grpc_port is not None:
        refuse_taken_port(options.host, options.grpc_port, option="--grpc-port")
        if options.grpc_port == options.port:
            raise PortInUse("HTTP and gRPC cannot share a port; choose another --grpc-port.")


def refuse_taken_port(host: str, port: int, *, option: str = "--port") -> None:
    """Raise `PortInUse` when somebody listens at *host*:*port* already."""
    if not 0 < port <= _LAST_PORT:
        raise PortInUse(f"There is no port {port}; choose a {option} from 1 to {_LAST_PORT}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free, one that is listened on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on {host} cannot be used ({error.strerror});"
                f" stop who listens there or choose another {option}."
            ) from error


def refuse_too_many_replicas(options: ServeOptions) -> None:
    """Raise `ServingError` when this machine has not the cores for all that may be started."""
    cores = usable_cores()
    each = (
        (options.lanes or 1) * (options.threads or 1) if options.lanes or options.threads else cores
    )
    most = most_replicas(options)
    if most > 1 and most * each > cores:
        raise ServingError(
            f"{most} replicas of {each} cores each do not fit on this machine's {cores}.",
            hint="Say --lanes and --threads for each, or let a cluster serve it: --write-config.",
        )


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
def _logging(settings: ServeSettings) -> Iterator[ServeSettings]:
    """The settings, with a log that replicas can write. Raises `Unwritable` before anything starts."""
    if settings.request_log is None:
        yield settings
    elif settings.request_log == STANDARD_OUTPUT:
        with relayed() as path:
            yield settings.model_copy(update={"request_log": path})
    else:
        open_sink(settings.request_log).close()
        yield settings


def _start(
    options: ServeOptions, settings: ServeSettings, gpus: float, stop: threading.Event
) -> str:
    """Deploy, and return the URL once a request was answered there."""
    _go_on_unless(stop)
    _refuse_missing_gpus(settings.package, gpus)
    _run(settings)
    _go_on_unless(stop)
    url = f"http://{_reachable(options.host)}:{options.port}"
    with Client(url) as client:
        try:
            client.wait_ready(timeout_s=_START_TIMEOUT_S, alive=lambda: not stop.is_set())
            _wait_for_grpc(options, stop)
        except RemoteError:
            _go_on_unless(stop)
            raise
    return url


def _wait_for_grpc(options: ServeOptions, stop: threading.Event) -> None:
    if options.grpc_port is None:
        return
    from serving.grpc_door import wait_ready  # imports gRPC, which most servers do without

    address = f"{_reachable(options.host)}:{options.grpc_port}"
    wait_ready(address, timeout_s=_START_TIMEOUT_S, alive=lambda: not stop.is_set())


def _go_on_unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise _StoppedEarlyError


def _refuse_missing_gpus(package: str, gpus: float) -> None:
    """Raise `PackageError` where Ray would wait for a GPU for ever."""
    import ray as untyped_ray

    ray: Any = untyped_ray
    if gpus > ray.cluster_resources().get("GPU", 0):
        raise PackageError(
            f"{package} was exported for a GPU, and Ray finds none here; serve it on a machine with"
            " one, or run miniml export --target cpu."
        )


def _run(settings: ServeSettings) -> None:
    from ray import serve as ray_serve

    from serving.app import build  # imports Ray, which reads the environment set before

    try:
        ray_serve.run(build(settings), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:  # Ray's word for a replica whose constructor raised
        deployments = ray_serve.status().applications[APPLICATION].deployments.values()
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
