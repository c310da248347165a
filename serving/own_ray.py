"""A Ray of `miniml serve`'s own on this machine, and Serve on it; it ends with the server."""

from __future__ import annotations

import io
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from typing import Any

from serving.deploy_file import grpc_options
from serving.errors import ServingError
from serving.lanes import usable_cores
from serving.options import ServeOptions

_log = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 80 * 2**20  # answers never pass through it; Ray's least is 75 MiB
# Ray puts sockets about 70 bytes below its folder; the kernel allows 107 in all.
_LONGEST_RAY_FOLDER_BYTES = 35
# What shows logs on a driver's terminal, Ray's own pages, and what adds machines to a cluster.
_SPARE_HELPERS = ("log_monitor", "dashboard", "monitor")


def ray_folder() -> str | None:
    """A short folder for Ray's sockets when its default is too deep for the kernel, else None."""
    default = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(default)) <= _LONGEST_RAY_FOLDER_BYTES:
        return None
    return f"/tmp/ray-{os.getuid()}"  # noqa: S108 - a name of our own would be no shorter


@contextmanager
def own_ray(options: ServeOptions, go_on: Callable[[], None]) -> Iterator[None]:
    """While the block lasts Serve listens on the options' address; then all of it is gone.

    go_on: asked between the steps of the start; raises to give it up. Raises `ServingError` where Serve does not
    come up.
    """
    import ray as untyped_ray
    from ray import serve as untyped_serve

    ray: Any = untyped_ray
    ray_serve: Any = untyped_serve
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Not on this thread: there Ray would put in its own SIGTERM handler, which leaves its start half
    # done. The thread must stay: the kernel ends Ray's processes with the thread that started them.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray") as starter:
        try:
            starter.submit(_start, options).result()
            for number, handler in handlers.items():  # Ray's own, below Python's, would abort
                signal.signal(number, handler)
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            _end_spare_helpers()
            go_on()
            _listen(options)
            yield
        finally:
            with redirect_stdout(io.StringIO()):  # there Ray calls its controller's end a failure
                # Serve first: it stops HAProxy, which would survive Ray and keep the port.
                if ray.is_initialized():  # else Serve would start a Ray to look for itself
                    ray_serve.shutdown()
                ray.shutdown()


def _start(options: ServeOptions) -> None:
    """Start a Ray that is nobody else's: never a cluster that RAY_ADDRESS names or that runs here already."""
    import ray as untyped_ray

    ray: Any = untyped_ray
    ray.init(
        address="local",
        num_cpus=max(usable_cores(), (options.lanes or 1) * (options.threads or 1)),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": "serving.environment.without_data_frames"},
        logging_level=logging.ERROR,
        _temp_dir=ray_folder(),
    )


def _listen(options: ServeOptions) -> None:
    """Start Serve's proxy at the options' address."""
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    try:
        ray_serve.start(
            http_options={"host": options.host, "port": options.port},
            grpc_options=grpc_options(options) or None,
        )
    except RayError as error:
        raise ServingError(
            f"Ray Serve did not come up at {options.host}:{options.port}.",
            hint="Somebody else may listen there since this began, or the machine is overloaded:"
            " look who has the port, and try again when it is quieter.",
        ) from error


def _end_spare_helpers() -> None:
    """End what Ray starts beside, and no server on one machine uses.

    They look around all the time: 16 ms of CPU each second, and 165 MB (docs/log.md). Nobody starts them again. Ray has
    no option to leave them out, so it is asked by methods of its own that it does not document; a Ray without
    them keeps its helpers.
    """
    from ray._private import worker

    node = getattr(worker, "_global_node", None)
    for name in _SPARE_HELPERS:
        try:
            getattr(node, f"kill_{name}")(check_alive=False)
        except AttributeError:
            _log.debug("This Ray keeps its %s", name)
