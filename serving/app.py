"""The Ray Serve application: one deployment, the whole path in one process.

    serve run serving.app:build package=reviews@latest

`build` resolves the reference once, in the process that was asked; replicas get a folder and a
digest, and refuse anything else. No `from __future__ import annotations` here: Ray validates the
arguments into `ServeSettings` only when the annotation is a class at run time.
"""

import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve

from serving.access.gate import Gate
from serving.access.keys import KeyRing
from serving.autoscaler import replicas_for
from serving.calibration import calibrated_lanes
from serving.canonical import refuse_unknown_code
from serving.core import Core
from serving.errors import EngineFailed, PackageError
from serving.gpu import default_streams, gpus_for
from serving.lanes import Lanes, choose_lanes, usable_cores
from serving.locate import locate, locate_apart, pin
from serving.observing.replica_log import write_to_rays_file
from serving.observing.traffic import Traffic
from serving.package import PackageConfig, open_package, read_config
from serving.protocols.replicas import Here
from serving.protocols.surface import build_endpoint
from serving.rollout.cluster_store import ClusterStore
from serving.rollout.everywhere import AllReplicas, AllRollouts, ask_all
from serving.rollout.following import Rollout
from serving.rollout.ledger import Ledger
from serving.rollout.shelf import Loaded, Shelf
from serving.rollout.starting import first_wanted, with_pinned_shadow
from serving.rollout.wanted import Pinned, Wanted
from serving.rollout.witness import Witness
from serving.settings import ServeSettings
from serving.shadow.report import ShadowState
from serving.shortcut import MAX_ONGOING_REQUESTS

if TYPE_CHECKING:
    from serving.models.routing import Models

_SWITCH_INTERVAL_S = 5e-4


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
        self, start: Wanted, folder: str, lanes: Lanes | int, settings: ServeSettings, name: str
    ) -> None:
        """Folder: where the deployment found the package. lanes: or cores, to be split by measurement.

        start: what is wanted until somebody changes it. name: of the deployment in Ray's store.
        """
        # Set before the first use: a tokenizer pool of its own would fight the lanes for the cores.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        # A lane that comes back from the graph must not wait 5 ms, Python's default, for a turn.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        write_to_rays_file()
        self._lanes, self._settings = lanes, settings
        self._gate, self._traffic = _gate(settings), Traffic()
        self._name = serve.get_replica_context().replica_id.unique_id
        self._found = (start.model().digest, Path(folder))
        ledger = Ledger(ClusterStore(), name)
        start = ledger.proven() or start
        self._has_several = len(start.models) > 1
        shelf = Shelf(start.model(), self._load)
        self._models = self._several(shelf, start) if self._has_several else None
        self.miniml_endpoint = self._models or shelf
        self._rollout = Rollout(
            *(ledger, shelf, start),
            models=self._models,
            replica=self._name,
            tell=lambda: ask_all("look"),
        )

    ServerLive = _rpc("ServerLive")
    ServerReady = _rpc("ServerReady")
    ServerMetadata = _rpc("ServerMetadata")
    ModelReady = _rpc("ModelReady")
    ModelMetadata = _rpc("ModelMetadata")
    ModelInfer = _rpc("ModelInfer")

    async def check_health(self) -> None:
        """Called by Ray; after three failures in a row it replaces the replica."""
        self._rollout.look()  # whoever was told of a change knows it already
        if not self.miniml_endpoint.healthy():
            raise EngineFailed("A lane has stalled.")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray where the number of replicas may change."""
        return self.miniml_endpoint.report()

    async def drain(self, within_s: float) -> int:
        """Refuse who comes from now on, answer who is here; how many are not answered in time."""
        return await self.miniml_endpoint.finish(within_s)

    # What `serving.rollout.everywhere` asks each for.

    async def cache_numbers(self) -> dict[str, float]:
        """Of this replica."""
        return await self._here.cache_numbers()

    async def clear_cache(self) -> int:
        """In this replica, and in Redis."""
        return sum([await each.endpoint.here.clear_cache() for each in self.miniml_endpoint.loaded])

    async def metrics(self) -> tuple[str, bytes]:
        """This replica's name and its metrics."""
        return self._name, await self._here.metrics()

    async def shadow_state(self) -> ShadowState | None:
        """What a candidate did here; None where there is none."""
        return self._here.beside.state()

    async def look(self) -> None:
        """Something else may be wanted."""
        self._rollout.look()

    async def rollout_state(self) -> dict[str, Any]:
        """What this replica serves."""
        return await self._rollout.state()

    @property
    def _here(self) -> Here:
        return self.miniml_endpoint.current.endpoint.here

    def _load(self, source: Pinned) -> Loaded:
        """Open a package, warm up, prove its golden answers. Raises `PackageError`."""
        digest, folder = self._found
        place = folder if source.digest == digest else Path(source.package)
        # On the machine that deployed it, it lies there; on another it is fetched.
        if not place.is_dir():
            place = locate_apart(source.package, source.digest)
        package = open_package(place)
        if package.digest != source.digest:
            raise PackageError(
                f"{source.package} is package {package.digest[:12]}, not {source.digest[:12]}."
            )
        lanes = self._lanes
        if isinstance(lanes, int):  # cores, to be split by what is fastest on this machine
            # Measured once, at the start: beside requests they would be measured wrong.
            lanes = self._lanes = calibrated_lanes(package, lanes)
        refuse_unknown_code(package.config.canonicalizer, self._settings.allow_code)
        core, witness = Core(package, lanes, self._settings, replica=self._name), Witness()
        endpoint = build_endpoint(
            *(core, self._settings),
            gate=self._gate,
            replicas=AllReplicas,
            replica=self._name,
            rollouts=AllRollouts(lambda: self._rollout),
            witnesses=[witness],
            traffic=self._traffic,
            models=self._listing if self._has_several else None,
        )
        return Loaded(source=source, core=core, endpoint=endpoint, witness=witness)

    def _several(self, shelf: Shelf, start: Wanted) -> "Models":
        # Memory that only those pay who serve several.
        from serving.models.metrics import ModelMetrics
        from serving.models.routing import Models

        most_bytes = self._settings.models_bytes
        models = Models(shelf, start.models, self._load, most_bytes=most_bytes, gate=self._gate)
        self._traffic.registry.register(ModelMetrics(models.others.all))
        return models

    def _listing(self) -> list[dict[str, Any]]:
        return self._models.listing() if self._models else []

    def __serve_build_asgi_app__(self) -> "Shelf | Models":
        """The ASGI app; an object, since Ray takes a bound method for an ASGI 2 app."""
        return self.miniml_endpoint

    async def __del__(self) -> None:  # Ray awaits it at shut-down
        """Answer what waits; refuse what comes."""
        if rollout := getattr(self, "_rollout", None):
            await rollout.close()
            await self.miniml_endpoint.close()


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
    # Whoever deploys begins anew: what was rolled out before was on top of something else.
    name = uuid.uuid4().hex
    settings = with_pinned_shadow(args)
    reference = str(folder) if Path(args.package).is_dir() else pin(args.package)[0]
    start = first_wanted(config.name, reference, digest, settings)
    application: serve.Application = sized.bind(start, str(folder), lanes or cpus, settings, name)
    return application


def _gate(settings: ServeSettings) -> Gate | None:
    """Who may come in; None is everybody."""
    if settings.keys is None:
        return None
    from serving.access.metering import Meter  # memory that only those pay who use keys

    return Gate(KeyRing(Path(settings.keys)), Meter(settings.redis_url))


def _told_lanes(config: PackageConfig, args: ServeSettings) -> Lanes | None:
    """The lanes, where the settings or the kind of machine say them; else they are measured."""
    count = args.lanes or default_streams(config.runtime)
    if count is None and args.threads is None:
        return None
    return choose_lanes(usable_cores(), count=count, threads=args.threads)
