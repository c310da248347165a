"""The whole HTTP surface of one replica, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from serving.access.gate import Gate
from serving.core import Core
from serving.observing.metrics import Metrics
from serving.observing.request_log import RequestLog
from serving.observing.traffic import Traffic
from serving.protocols.asgi import Endpoint
from serving.protocols.desk import Desk, Observer
from serving.protocols.documentation import build_documentation
from serving.protocols.replicas import Here, Replicas
from serving.protocols.rollout_door import Rollouts, add_rollout
from serving.settings import ServeSettings
from serving.shadow.beside import Beside
from serving.shadow.metrics import ShadowMetrics

if TYPE_CHECKING:
    from serving.observing.tracing import Tracing


def build_endpoint(  # noqa: PLR0913 - every one but the first two has a default that is right
    core: Core,
    settings: ServeSettings,
    *,
    gate: Gate | None = None,
    replicas: Callable[[Here], Replicas] = lambda here: here,
    replica: str = "",
    rollouts: Rollouts | None = None,
    witnesses: Sequence[Observer] = (),
    traffic: Traffic | None = None,
    models: Callable[[], list[dict[str, Any]]] | None = None,
) -> Endpoint:
    """The ASGI app. gate: who may come in. replicas: all there are, given this one. replica: its name.

    rollouts: how another package can be had; None: not at all. witnesses: more who are told of every
    request. traffic: where the process counts for all its packages. models: all that are served, where
    there are several. Raises `Unwritable` for a request log that cannot be.
    """
    log = _request_log(settings, replica)
    metrics = Metrics(core.package, partial(_numbers, core, log), core.batch_sizes, traffic=traffic)
    tracing = _tracing(core)
    beside = Beside(core, allow_code=settings.allow_code)
    metrics.registry.register(ShadowMetrics(core.package.config.labels, beside.state))
    observers = [each for each in (metrics, tracing, log, beside, *witnesses) if each]
    desk = Desk(
        *(core, gate, observers),
        enter=tracing.enter if tracing else None,
        closing=[each.close for each in (beside, core.spans, log, metrics) if each],
    )
    here = Here(core, metrics, beside)
    documentation = build_documentation(core, replicas(here), desk, models)
    if rollouts:
        add_rollout(documentation, rollouts, settings)
    return Endpoint(core, settings, documentation, desk=desk, gate=gate, here=here)


def _numbers(core: Core, log: RequestLog | None) -> dict[str, float]:
    return core.operations() | (log.numbers() if log else {})


def _tracing(core: Core) -> Tracing | None:
    if core.spans is None:
        return None
    from serving.observing.tracing import Tracing  # memory that only those pay who trace

    return Tracing(core.spans, core.package)


def _request_log(settings: ServeSettings, replica: str) -> RequestLog | None:
    if settings.request_log is None:
        return None
    return RequestLog(settings.request_log, with_texts=settings.log_texts, replica=replica)
