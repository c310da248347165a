"""From Ray's HTTP server straight to the replica's endpoint.

Around every request of a replica Ray makes two tasks, a context and metrics of its own: 0.3 ms of
CPU, more than all of ours. It lets Starlette middlewares stand before that, named by a variable of
the environment (`serving.environment`); this one hands the endpoint what is its. Where another is
named, requests take Ray's way to the same endpoint. uvicorn still counts them when it drains; Ray's
own numbers of requests do not. Imported by Ray's proxies too, so it must stay light.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware

from serving.one_write import write_answers_once
from serving.request import id_for

if TYPE_CHECKING:
    from serving.models.routing import Models
    from serving.protocols.asgi import AsgiApp, Endpoint, Message, Send
    from serving.protocols.headers import Headers
    from serving.protocols.leaving import Receive
    from serving.rollout.shelf import Shelf

# Requests held open by one replica. The batcher refuses by milliseconds of work long before; this
# only bounds sockets and memory.
MAX_ONGOING_REQUESTS = 1000
_REQUEST_ID = b"x-request-id"
_CONTROLS = frozenset(
    (
        b"x_request_timeout_seconds",
        b"x_request_disconnect_disabled",
        b"serve_multiplexed_model_id",
        b"forwarded",
        b"x_real_ip",
    )
)
# Whose request it is, by the caller's own word.
_FORWARDED = b"x_forwarded_"


def middlewares() -> list[Middleware]:
    """What Ray puts around the HTTP servers of its replicas and proxies; called before they start."""
    write_answers_once()
    return [Middleware(Shortcut, endpoint=endpoint_here)]


def endpoint_here() -> Endpoint | Shelf | Models | None:
    """This replica's, once it takes requests; none in a proxy or where the application is not ours."""
    try:
        servable: Any = serve.get_replica_context().servable_object
    except RayServeException:
        return None
    endpoint: Endpoint | Shelf | Models | None = getattr(servable, "miniml_endpoint", None)
    return endpoint


class Shortcut:
    """What *endpoint()* takes goes there, everything else to *app*, which is Ray's.

    What callers could tell by headers, Ray a time limit of their own or FastAPI another address,
    does not reach them.
    """

    def __init__(
        self, app: AsgiApp, *, endpoint: Callable[[], Endpoint | Shelf | Models | None]
    ) -> None:
        self._app = app
        self._find = endpoint
        self._free = asyncio.Semaphore(MAX_ONGOING_REQUESTS)

    @cached_property
    def _endpoint(self) -> Endpoint | Shelf | Models | None:
        return self._find()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream; with a request id where the endpoint answers, as Ray gives it."""
        endpoint = self._endpoint
        if endpoint is None or not endpoint.takes(scope):
            headers = [(name, value) for name, value in scope["headers"] if _is_allowed(name)]
            await self._app({**scope, "headers": headers}, receive, send)
            return
        headers, request_id = _identified(scope["headers"])

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((_REQUEST_ID, request_id))
            await send(message)

        async with self._free:
            await endpoint({**scope, "headers": headers}, receive, identified)


def _is_allowed(name: bytes) -> bool:
    spelt = name.replace(b"-", b"_")  # Ray takes either spelling
    return spelt not in _CONTROLS and not spelt.startswith(_FORWARDED)


def _identified(headers: Headers) -> tuple[Headers, bytes]:
    """Headers with a request id, and the id: the caller's if it may stand in a log, or a new one."""
    given = next((value for name, value in headers if name == _REQUEST_ID), b"")
    request_id = id_for(given)
    others = [(name, value) for name, value in headers if name != _REQUEST_ID]
    return [*others, (_REQUEST_ID, request_id)], request_id
