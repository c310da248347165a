"""The Open Inference Protocol over gRPC: a method for each call, the same core and the same limits.

Metadata carry what headers do in HTTP, both ways. Knows neither Ray nor how calls come here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import unquote

from grpc import StatusCode

from serving.access.gate import Gate
from serving.access.keys import Key
from serving.core import Core
from serving.errors import Forbidden, ServingError, TooLarge, UnknownModel
from serving.protocols import open_inference_pb2 as pb
from serving.protocols.calls import CALLS, SERVICE
from serving.protocols.desk import Desk
from serving.protocols.headers import (
    PARENT,
    STATE,
    Headers,
    about_answer,
    about_error,
    priority,
    request_id,
    said,
    wants_fresh,
    within_ms,
)
from serving.protocols.in_flight import InFlight
from serving.protocols.inference import Inference, version_of
from serving.protocols.messages import infer_answer, model_answer, server_answer, texts_of
from serving.request import OTHER, Request, id_for
from serving.settings import ServeSettings

# Whoever balances load has no key.
_OPEN = frozenset(("ServerLive", "ServerReady"))
_CODES = {
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
_CALLERS_FAULT = range(400, 500)
# Details go in a trailer, which clients take up to 8 KB of; a character may be 9 bytes of it.
_LONGEST_DETAILS = 500
_PEER = re.compile(r"ipv[46]:(.+):\d+")
_ID = b"x-request-id"


class Context(Protocol):
    """What of gRPC's servicer context is used: Ray's has it, too, but for `time_remaining`."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What came beside the message."""
        ...

    def peer(self) -> str:
        """Who calls, as gRPC writes it."""
        ...

    def set_code(self, code: StatusCode) -> None:
        """Of the answer."""
        ...

    def set_details(self, details: str) -> None:
        """The sentence beside a code."""
        ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        """What goes behind the answer."""
        ...


class Rpc:
    """The calls of one replica."""

    def __init__(
        self,
        core: Core,
        settings: ServeSettings,
        *,
        desk: Desk,
        gate: Gate | None,
        in_flight: InFlight,
    ) -> None:
        """Gate: who may come in; without one, everybody."""
        self._package = core.package
        self._settings = settings
        self._desk = desk
        self._gate = gate
        self._in_flight = in_flight
        self._core = core
        self._inference = Inference(core.package, settings)
        self._digest = core.package.digest.encode()

    async def call(
        self, name: str, message: Any, context: Context, *, refused: ServingError | None = None
    ) -> Any:
        """See `_called`; those who drain wait for it."""
        with self._in_flight:
            return await self._called(name, message, context, refused)

    def admit(self, name: str, context: Context) -> None:
        """Raise `Unauthenticated` or `Forbidden` for who may not call."""
        self._admitted(name, _headers(context), context)

    async def _called(
        self, name: str, message: Any, context: Context, refused: ServingError | None
    ) -> Any:
        """The answer to the call *name*; where it is refused, an empty one and a code in *context*."""
        headers = _headers(context)
        request = Request(
            door="gate",
            id=request_id(headers),
            path=f"/{SERVICE}/{name}",
            traceparent=said(headers, PARENT),
            tracestate=said(headers, STATE),
        )
        beside = [(_ID, headers[_ID])]
        try:
            key = self._admitted(name, headers, context)
            request = replace(request, door=_door(refused), key=key, fresh=wants_fresh(headers))
            _go_on_unless(refused)
            if name == "ModelInfer":
                self._in_flight.refuse_when_draining()
                answer, more = await self._infer(request, message, headers, context)
                beside += more
            else:
                answer = self._told(name, message)
        except asyncio.CancelledError:  # the caller has left
            self._desk.left(request)
            raise
        except Exception as error:  # noqa: BLE001 - a bug must not hang a client
            refusal = self._desk.refused(request, error)
            beside += [*about_error(refusal), (b"x-error-type", type(refusal).__name__.encode())]
            context.set_code(code_of(refusal))
            context.set_details(_details(refusal))
            answer = CALLS[name].gives()
        context.set_trailing_metadata([(key.decode(), value.decode()) for key, value in beside])
        return answer

    def _admitted(self, name: str, headers: Mapping[bytes, bytes], context: Context) -> Key | None:
        """Whose call it is. Raises `Unauthenticated`, `Forbidden`."""
        if self._settings.local_only and not _is_local(context.peer()):
            raise Forbidden(
                "This server answers on its own machine alone.",
                hint="Start it with --keys, or with --host and a key.",
            )
        if self._gate is None or name in _OPEN:
            return None
        return self._gate.admit(f"/{SERVICE}/{name}", "POST", headers)

    async def _infer(
        self,
        request: Request,
        message: pb.ModelInferRequest,
        headers: Mapping[bytes, bytes],
        context: Context,
    ) -> tuple[pb.ModelInferResponse, Headers]:
        """The answer, and what goes behind it."""
        if (size := message.ByteSize()) > self._settings.max_body_bytes:
            raise TooLarge(
                f"The message has {size} bytes; the limit is {self._settings.max_body_bytes}.",
                hint="Send several smaller calls.",
            )
        request = replace(
            request,
            within_ms=min(within_ms(headers), _left_ms(context)),
            priority=priority(headers),
        )
        self._check_model(message.model_name, message.model_version)
        outputs = self._inference.outputs([output.name for output in message.outputs])
        question = self._inference.question(texts_of(message))
        await self._desk.charge(request, question)
        answered = await self._desk.ask(request, question)
        values = self._inference.values(answered)
        answer = infer_answer(message, self._package, outputs, values)
        self._desk.answered(request, answered)
        return answer, about_answer(self._digest, answered)

    def _told(self, name: str, message: Any) -> Any:
        """The answer to a call that needs no inference. Raises `UnknownModel`."""
        if name == "ServerLive":
            return pb.ServerLiveResponse(live=True)
        if name == "ServerReady":
            return pb.ServerReadyResponse(ready=self._ready)
        if name == "ServerMetadata":
            return server_answer(self._package)
        self._check_model(message.name, message.version)
        if name == "ModelReady":
            return pb.ModelReadyResponse(ready=self._ready)
        return model_answer(self._package)

    @property
    def _ready(self) -> bool:
        return not self._in_flight.draining and self._core.healthy()

    def _check_model(self, name: str, version: str) -> None:
        known, current = self._package.config.name, version_of(self._package)
        if name != known:
            raise UnknownModel(f"There is no model {name[:100]!r} here, but {known!r}.")
        if version not in ("", current):
            raise UnknownModel(f"There is no version {version[:100]!r} here, but {current!r}.")


def _door(refused: ServingError | None) -> str:
    """Refused by who handed it on: as over HTTP, that is no door's doing."""
    return OTHER if refused else "grpc"


def _go_on_unless(refused: ServingError | None) -> None:
    if refused:
        raise refused


def code_of(error: ServingError) -> StatusCode:
    """gRPC's word for the error's HTTP status."""
    fault = StatusCode.INVALID_ARGUMENT if error.status in _CALLERS_FAULT else StatusCode.INTERNAL
    return _CODES.get(error.status, fault)


def _headers(context: Context) -> dict[bytes, bytes]:
    """Metadata as headers, with a request id of the caller's or a new one."""
    headers = {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in context.invocation_metadata() or ()
    }
    headers[_ID] = id_for(headers.get(_ID, b""))
    return headers


def _details(error: ServingError) -> str:
    return f"{error} {error.hint}".strip()[:_LONGEST_DETAILS]


def _left_ms(context: Context) -> float:
    """Milliseconds until the client's own deadline; infinite where it has none or nobody tells."""
    left_s = getattr(context, "time_remaining", lambda: None)()
    return math.inf if left_s is None else left_s * 1e3


def _is_local(peer: str) -> bool:
    """Whether the caller is on this machine; *peer* as in `ipv6:%5B::1%5D:4711`."""
    if peer.startswith("unix:"):
        return True
    if not (found := _PEER.fullmatch(peer)):
        return False
    address = ipaddress.ip_address(unquote(found[1]).strip("[]").partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
