"""From Ray's gRPC server straight to the replica's endpoint.

Ray calls `add_open_inference` in each process that has a gRPC server. It puts handlers of its own in
place of a service's, which hide the caller's deadline and cost 0.45 ms of CPU a call, of 1.4; in a
replica of ours calls go past them. In a proxy, or where the application is not ours, calls take Ray's
way to the methods of `serving.app`. Imported by Ray's proxies too, so it must stay light.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection

from serving.errors import ServingError
from serving.protocols.calls import CALLS, SERVICE
from serving.shortcut import MAX_ONGOING_REQUESTS, endpoint_here

if TYPE_CHECKING:
    from serving.models.routing import Models
    from serving.protocols.asgi import Endpoint
    from serving.rollout.shelf import Shelf

Handler = Callable[[Any, Any], Awaitable[Any]]
_ASK_AGAIN_S = 0.1


def add_open_inference(servicer: Any, server: Any) -> None:
    """Add the service, and reflection of it, to Ray's *server*."""
    server.add_generic_rpc_handlers((Straight(servicer, endpoint=endpoint_here),))
    # Not Ray's own reflection: it looks for messages in the pool that all of a process share.
    server.add_passthrough_service(reflection.SERVICE_NAME)
    pool = CALLS["ModelInfer"].takes.DESCRIPTOR.file.pool
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=pool)


def wait_ready(address: str, *, timeout_s: float, alive: Callable[[], bool]) -> None:
    """Return once a call is answered at *address*, or *alive()* is false. Raises `ServingError`."""
    call = CALLS["ServerLive"]
    deadline_s = time.monotonic() + timeout_s
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ServerLive",
            request_serializer=call.takes.SerializeToString,
            response_deserializer=call.gives.FromString,
        )
        while alive():
            try:
                ask(call.takes(), timeout=_ASK_AGAIN_S * 10)
            except grpc.RpcError as error:
                if time.monotonic() > deadline_s:
                    raise ServingError(f"gRPC does not answer at {address}: {error}") from error
                time.sleep(_ASK_AGAIN_S)
            else:
                return


class Straight(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """The service; calls go to *endpoint()* where there is one, else to what Ray has put here.

    Ray's server reads `_method_handlers` and sets it to its own handlers.
    """

    def __init__(
        self, servicer: Any, *, endpoint: Callable[[], Endpoint | Shelf | Models | None]
    ) -> None:
        self._find = endpoint
        self._free = asyncio.Semaphore(MAX_ONGOING_REQUESTS)
        self._method_handlers = {
            f"/{SERVICE}/{name}": grpc.unary_unary_rpc_method_handler(
                getattr(servicer, name), call.takes.FromString, call.gives.SerializeToString
            )
            for name, call in CALLS.items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call; none for another service's."""
        return self._straight.get(handler_call_details.method)

    @cached_property
    def _straight(self) -> dict[str, Any]:
        return {
            method: handler._replace(
                # In bytes both ways: Ray's handlers give them, and gRPC would log a caller's mistake.
                request_deserializer=None,
                response_serializer=None,
                unary_unary=partial(self._call, method.rpartition("/")[2], handler.unary_unary),
            )
            for method, handler in self._method_handlers.items()
        }

    @cached_property
    def _endpoint(self) -> Endpoint | Shelf | Models | None:
        return self._find()

    async def _call(self, name: str, through_ray: Handler, body: bytes, context: Any) -> Any:
        """The answer's bytes; none, and a code in *context*, where *body* is no message."""
        takes = CALLS[name].takes
        try:
            message = takes.FromString(body)
        except DecodeError:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details(f"{len(body)} bytes are no {takes.DESCRIPTOR.full_name}.")
            return b""
        if self._endpoint is None:
            return await through_ray(message, context)
        async with self._free:
            answer = await self._endpoint.rpc.call(name, message, context)
        return answer.SerializeToString()
