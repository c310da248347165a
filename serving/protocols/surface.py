"""The whole HTTP surface of one replica, put together."""

from __future__ import annotations

from collections.abc import Callable

from serving.core import Core
from serving.gate import Gate
from serving.metrics import Metrics
from serving.protocols.asgi import Endpoint
from serving.protocols.desk import Desk
from serving.protocols.documentation import build_documentation
from serving.protocols.replicas import Here, Replicas
from serving.settings import ServeSettings


def build_endpoint(
    core: Core,
    settings: ServeSettings,
    *,
    gate: Gate | None = None,
    replicas: Callable[[Here], Replicas] = lambda here: here,
) -> Endpoint:
    """The ASGI app. gate: who may come in. replicas: all there are, given this one."""
    metrics = Metrics(core.package, core.operations, core.batch_sizes)
    desk = Desk(core, gate, [metrics])
    documentation = build_documentation(core, replicas(Here(core, metrics)), desk)
    return Endpoint(core, settings, documentation, desk=desk, gate=gate)
