"""Before Ray is stopped: what was accepted is answered, in every replica.

Ray's own shutdown stops HAProxy first, and cuts off who is still being answered.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

_log = logging.getLogger(__name__)
_DRAIN_S = 20.0  # less than the 30 s that Kubernetes gives a pod
_TELL_S = 5.0


def drain_all(application: str) -> None:
    """Refuse who comes from now on, and wait until those who are here are answered, 20 s at most."""
    import ray as untyped_ray

    ray: Any = untyped_ray
    _log.info("Stopping: answering what was accepted")
    # In a worker: a handle's open calls would keep this process from leaving Ray for a minute.
    remote = ray.remote(num_cpus=0, max_retries=0)(_drained)
    try:
        left = ray.get(remote.remote(application), timeout=_DRAIN_S + _TELL_S)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep us from stopping
        _log.warning("Replicas could not be waited for: %s", error)
        return
    if left:
        _log.warning("%d requests took longer than %g s and are given up", left, _DRAIN_S)


def _drained(application: str) -> int:
    """How many requests were not answered in time."""
    from ray import serve as untyped_serve

    serve: Any = untyped_serve

    async def tell() -> int:  # Ray wants to be asked within a loop
        handle = serve.get_app_handle(application)
        return sum(await handle.broadcast("drain", _DRAIN_S).results_async())

    return asyncio.run(tell())
