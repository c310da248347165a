"""The Ray Serve application: one deployment, the whole path in one process.

    serve run serving.app:build package=reviews@latest

`build` resolves the reference once, in the process that was asked; replicas get a folder and a
digest, and refuse anything else. No `from __future__ import annotations` here: Ray validates the
arguments into `ServeSettings` only when the annotation is a class at run time.
"""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ray import serve

from serving.autoscaler import replicas_for
from serving.calibration import calibrated_lanes
from serving.canonical import refuse_unknown_code
from serving.core import Core
from serving.errors import EngineFailed, PackageError
from serving.gate import Gate
from serving.gpu import default_streams, gpus_for
from serving.keys import KeyRing
from serving.lanes import Lanes, choose_lanes, usable_cores
from serving.locate import locate
from serving.metrics import side_by_side
from serving.package import PackageConfig, open_package, read_config
from serving.protocols.asgi import AsgiApp
from serving.protocols.replicas import Here
from serving.protocols.surface import build_endpoint
from serving.replica_log import write_to_rays_file
from serving.settings import ServeSettings
from serving.shortcut import MAX_ONGOING_REQUESTS

_SWITCH_INTERVAL_S = 5e-4


class AllReplicas:
    """Every replica of this application: each is asked, by Ray. *here* is this one."""

    def __init__(self, here: Here) -> None:
        self._here = here

    async def cache_numbers(self) -> dict[str, float]:
        """Added up."""
        await self._here.cache_numbers()  # raises when none is kept; that is the same in all
        total: Counter[str] = Counter()
        for numbers in await self._everywhere("cache_numbers"):
            total.update(numbers)
        return dict(total)

    async def clear_cache(self) -> int:
        """In each, and in Redis."""
        # First, so that what it raises is told as it is, not as Ray wraps what others raise.
        removed = [await self._here.clear_cache()]
        return sum(removed + await self._everywhere("clear_cache"))

    async def metrics(self) -> bytes:
        """Each sample with its replica."""
        return side_by_side(await self._everywhere("metrics"))

    async def _everywhere(self, method: str) -> list[Any]:
        context = serve.get_replica_context()
        handle: Any = serve.get_deployment_handle(context.deployment, context.app_name)
        answers: list[Any] = await handle.broadcast(method).results_async()
        return answers


def _rpc(name: str) -> Any:
    """A method for Ray, which calls what is named as the rpc; see `serving.grpc_door`."""

    async def call(self: Any, message: Any, grpc_context: Any) -> Any:
        return await self.miniml_endpoint.rpc.call(name, message, grpc_context)

    return call


@serve.deployment(
    name="Encoder",
    max_ongoing_requests=MAX_ONGOING_REQUESTS,
    health_check_period_s=5,
    health_check_timeout_s=5,
    graceful_shutdown_wait_loop_s=0.5,
    # Where replicas are replaced, a new one is ready before an old one goes, the only one too.
    max_surge_percent=25,
    # At INFO a record would be made for every request, and dropped.
    logging_config={"encoding": "JSON", "enable_access_log": False, "log_level": "WARNING"},
)
@serve.ingress()
class Encoder:
    """One replica: opens the package, warms up, proves its golden answers, then answers HTTP."""

    def __init__(
        self, folder: str, digest: str, lanes: Lanes | int, settings: ServeSettings
    ) -> None:
        # Set before the first use: a tokenizer pool of its own would fight the lanes for the cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        # A lane that comes back from the graph must not wait 5 ms, Python's default, for a turn.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        write_to_rays_file()
        package = open_package(Path(folder))
        if package.digest != digest:
            raise PackageError(f"{folder} is package {package.digest[:12]}, not {digest[:12]}.")
        if isinstance(lanes, int):  # cores, to be split by what is fastest on this machine
            lanes = calibrated_lanes(package, lanes)
        name = serve.get_replica_context().replica_id.unique_id
        self._core = Core(package, lanes, settings, replica=name)
        self.miniml_endpoint = build_endpoint(
            *(self._core, settings),
            gate=_gate(settings),
            replicas=self._all_replicas,
            replica=name,
        )

    ServerLive = _rpc("ServerLive")
    ServerReady = _rpc("ServerReady")
    ServerMetadata = _rpc("ServerMetadata")
    ModelReady = _rpc("ModelReady")
    ModelMetadata = _rpc("ModelMetadata")
    ModelInfer = _rpc("ModelInfer")

    async def check_health(self) -> None:
        """Called by Ray; after three failures in a row it replaces the replica."""
        if not self._core.healthy():
            raise EngineFailed("A lane has stalled.")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray where the number of replicas may change."""
        return self._core.report()

    async def drain(self, within_s: float) -> int:
        """Refuse who comes from now on, answer who is here; how many are not answered in time."""
        return await self.miniml_endpoint.in_flight.finish(within_s)

    def _all_replicas(self, here: Here) -> AllReplicas:
        self._here = here
        return AllReplicas(here)

    # What `AllReplicas` asks each for.

    async def cache_numbers(self) -> dict[str, float]:
        """Of this replica."""
        return await self._here.cache_numbers()

    async def clear_cache(self) -> int:
        """In this replica, and in Redis."""
        return await self._here.clear_cache()

    async def metrics(self) -> tuple[str, bytes]:
        """This replica's name and its metrics."""
        return serve.get_replica_context().replica_id.unique_id, await self._here.metrics()

    def __serve_build_asgi_app__(self) -> AsgiApp:
        """The ASGI app; an object, since Ray takes a bound method for an ASGI 2 app."""
        return self.miniml_endpoint

    async def __del__(self) -> None:  # Ray awaits it at shut-down
        """Answer what waits; refuse what comes."""
        if endpoint := getattr(self, "miniml_endpoint", None):
            endpoint.in_flight.draining = True
            await self._core.close()
            await endpoint.close()


def build(args: ServeSettings) -> serve.Application:
    """The application for `serve run serving.app:build package=... key=value`.

    Raises `PackageError` or a registry error with one sentence when there is nothing to serve.
    """
    folder, digest = locate(args.package, digest=args.digest)
    config = read_config(folder)
    refuse_unknown_code(config.canonicalizer, args.allow_code)
    gpus = gpus_for(config, args.device, args.gpus)
    lanes = _told_lanes(config, args)
    cpus = lanes.count * lanes.threads if lanes else usable_cores()
    deployment: Any = Encoder  # the decorators turn the class into one
    needs = {"num_cpus": cpus, **({"num_gpus": gpus} if gpus else {})}
    # Ray's own schema takes no None for it.
    spread = {"max_replicas_per_node": most} if (most := args.max_replicas_per_node) else {}
    sized = deployment.options(ray_actor_options=needs, **spread, **replicas_for(args))
    application: serve.Application = sized.bind(str(folder), digest, lanes or cpus, args)
    return application


def _gate(settings: ServeSettings) -> Gate | None:
    """Who may come in; None is everybody."""
    if settings.keys is None:
        return None
    from serving.metering import Meter  # memory that only those pay who use keys

    return Gate(KeyRing(Path(settings.keys)), Meter(settings.redis_url))


def _told_lanes(config: PackageConfig, args: ServeSettings) -> Lanes | None:
    """The lanes, where the settings or the kind of machine say them; else they are measured."""
    count = args.lanes or default_streams(config.runtime)
    if count is None and args.threads is None:
        return None
    return choose_lanes(usable_cores(), count=count, threads=args.threads)
