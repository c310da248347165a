"""The HTTP surface of a replica as one raw ASGI app: the doors first, FastAPI for the rest.

Raw ASGI because FastAPI and pydantic cost about 175 microseconds of CPU a request, several times
what reading a short body takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import msgspec

from serving.access.gate import Gate
from serving.core import Core
from serving.errors import (
    NotReady,
    ServingError,
    SlowBody,
    TooLarge,
    WrongInput,
    WrongMethod,
)
from serving.protocols import oip
from serving.protocols.asking import Door, Written
from serving.protocols.classify import Classify
from serving.protocols.desk import Desk
from serving.protocols.headers import (
    PARENT,
    STATE,
    Headers,
    about_answer,
    about_error,
    request_id,
    said,
    wishes,
)
from serving.protocols.huggingface import HuggingFace, PredictOrInputs
from serving.protocols.in_flight import InFlight
from serving.protocols.inference import version_of
from serving.protocols.leaving import CallerLeft, Receive, unless_left
from serving.protocols.lines import LINES, Lines
from serving.protocols.rendering import write_error
from serving.protocols.replicas import Here
from serving.request import OTHER, Request
from serving.settings import ServeSettings

if TYPE_CHECKING:
    from serving.protocols.rpc import Rpc

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]
Handler = Callable[[Message, Receive, Send], Awaitable[None]]


class Endpoint:
    """Answers at the paths of `routes` itself; everything else goes to *documentation*."""

    def __init__(  # noqa: PLR0913 - what a door needs, each from elsewhere
        self,
        core: Core,
        settings: ServeSettings,
        documentation: AsgiApp,
        *,
        desk: Desk,
        gate: Gate | None,
        here: Here,
    ) -> None:
        """Gate: who may come in; without one, everybody. here: what can be asked of it alone."""
        self.here = here
        self._core = core
        self._settings = settings
        self._documentation = documentation
        self._desk = desk
        self._gate = gate
        self._lines = Lines(core, settings, desk)
        self._digest = core.package.digest.encode()
        self.in_flight = InFlight()
        self.routes = self._routes()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        if self._gate and scope["type"] == "http":
            headers = dict(scope["headers"])
            try:
                scope["key"] = self._gate.admit(scope["path"], scope["method"], headers)
            except ServingError as error:
                await self._refuse(_request("gate", scope, headers), error, send)
                return
        if refused := scope.get("refused"):  # by who handed it on: there is no such version
            await self._refuse(_request(OTHER, scope, dict(scope["headers"])), refused, send)
            return
        methods = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if methods is None:
            await self._documentation(scope, receive, send)
        elif handler := methods.get(scope["method"]):
            with self.in_flight:
                await handler(scope, receive, send)
        else:
            path, method, allow = scope["path"], scope["method"], ", ".join(methods)
            wrong = WrongMethod(f"{path} takes {allow}, not {method}.", allow=allow)
            await self._refuse(_request(OTHER, scope, dict(scope["headers"])), wrong, send)

    async def close(self) -> None:
        """Once nobody is answered any more."""
        await self._desk.close()

    def takes(self, scope: Message) -> bool:
        """Whether this answers a request itself, rather than pass it on."""
        methods = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        return methods is not None and methods.get(scope["method"]) is not self._documentation

    @property
    def ready(self) -> bool:
        """Warmed up, which construction did, with work flowing, and not draining."""
        return not self.in_flight.draining and self._core.healthy()

    @cached_property
    def rpc(self) -> Rpc:
        """The same over gRPC; made for the first call, since most servers take none."""
        from serving.protocols.rpc import Rpc

        return Rpc(
            *(self._core, self._settings),
            desk=self._desk,
            gate=self._gate,
            in_flight=self.in_flight,
        )

    def _routes(self) -> dict[str, dict[str, Handler]]:
        package, settings = self._core.package, self._settings
        model = f"/v2/models/{package.config.name}"
        version = f"{model}/versions/{version_of(package)}"
        said = partial(_say, msgspec.json.encode(oip.model_metadata(package)))
        server = partial(_say, msgspec.json.encode(oip.server_metadata(package)))
        infer = self._door("open_inference", oip.Infer(package, settings))
        predict = self._door("predict", PredictOrInputs(package, settings))
        nested = self._door("hub", HuggingFace(package, settings, nested=True))
        alive = _reading(partial(_say, b'{"status":"ok"}'))
        ready = _reading(partial(self._ready, b'{"status":"ok"}'))
        live = _reading(partial(_say, b'{"live":true}'))
        server_ready = _reading(partial(self._ready, b'{"ready":true}'))
        model_ready = msgspec.json.encode({"name": package.config.name, "ready": True})
        return {
            "/predict": {"POST": partial(self._predict, predict)},
            "/": {"POST": nested, "GET": self._documentation, "HEAD": self._documentation},
            "/v1/classify": {"POST": self._door("classify", Classify(package, settings))},
            "/healthz": alive,
            "/health": alive,
            "/readyz": ready,
            "/v2": _reading(server),
            "/v2/health/live": live,
            "/v2/health/ready": server_ready,
            model: _reading(said),
            version: _reading(said),
            f"{model}/ready": _reading(partial(self._ready, model_ready)),
            f"{version}/ready": _reading(partial(self._ready, model_ready)),
            f"{model}/infer": {"POST": infer},
            f"{version}/infer": {"POST": infer},
        }

    async def _predict(
        self, predict: Handler, scope: Message, receive: Receive, send: Send
    ) -> None:
        """Lines when the caller sends lines, else one document."""
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").partition(b";")[0]
        if kind.strip().lower() in LINES:
            request = _request("lines", scope, headers, priority="bulk")
            try:
                self.in_flight.refuse_when_draining()
                await self._lines(request, receive, send)
            except ServingError as error:
                await self._refuse(request, error, send)
        else:
            await predict(scope, receive, send)

    def _door(self, name: str, door: Door) -> Handler:
        return partial(self._ask, name, door)

    async def _ask(
        self, name: str, door: Door, scope: Message, receive: Receive, send: Send
    ) -> None:
        headers = dict(scope["headers"])
        try:
            request = _request(name, scope, headers, **wishes(headers))
        except WrongInput as error:
            await self._refuse(_request(name, scope, headers), error, send)
            return
        try:
            self.in_flight.refuse_when_draining()
            asked = door.read(await _body_in_time(receive, self._settings), headers)
            await self._desk.charge(request, asked)
            answered = await unless_left(self._desk.ask(request, asked), receive)
            written = asked.write(answered)
        except CallerLeft:
            self._desk.left(request)
        except asyncio.CancelledError:  # Ray saw that first
            self._desk.left(request)
            raise
        except Exception as error:  # noqa: BLE001 - a bug must not hang a client
            await self._refuse(request, error, send)
        else:
            await _send(send, 200, written, about_answer(self._digest, answered))
            self._desk.answered(request, answered)

    async def _refuse(self, request: Request, error: Exception, send: Send) -> None:
        await send_error(send, self._desk.refused(request, error))

    async def _ready(self, yes: bytes, scope: Message, receive: Receive, send: Send) -> None:
        """*yes*, or why not."""
        if not self.ready:
            reason = "is shutting down" if self.in_flight.draining else "has a stalled lane"
            # Not counted: a probe that hears no is no request that failed.
            await send_error(send, NotReady(f"This replica {reason}."))
        else:
            await _say(yes, scope, receive, send)


async def _say(body: bytes, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG001
    await _send(send, 200, Written(body=body), [])


def _reading(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}


def _request(door: str, scope: Message, headers: Mapping[bytes, bytes], **wanted: Any) -> Request:
    return Request(
        door=door,
        id=request_id(headers),
        method=scope["method"],
        path=scope["path"],
        key=scope.get("key"),
        traceparent=said(headers, PARENT),
        tracestate=said(headers, STATE),
        **wanted,
    )


async def _body_in_time(receive: Receive, settings: ServeSettings) -> bytes:
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await _read_body(receive, max_bytes=settings.max_body_bytes)
    except TimeoutError:
        raise SlowBody(f"The body did not come within {settings.body_timeout_s:g} s.") from None


async def _read_body(receive: Receive, *, max_bytes: int) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is beyond *max_bytes*."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(
                f"The body is larger than {max_bytes} bytes.", hint="Send several smaller calls."
            )
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def send_error(send: Send, error: ServingError) -> None:
    """The one error body, with the status of its class and Retry-After where it helps."""
    await _send(send, error.status, Written(body=write_error(error)), about_error(error))


async def _send(send: Send, status: int, written: Written, headers: Headers) -> None:
    base = [
        (b"content-type", written.content_type),
        (b"content-length", b"%d" % len(written.body)),
        *written.headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": base + headers})
    await send({"type": "http.response.body", "body": written.body})
