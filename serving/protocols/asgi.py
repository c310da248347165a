"""The HTTP surface of a replica as one raw ASGI app: the hot path first, FastAPI for the rest.

Raw ASGI because FastAPI and pydantic cost about 175 microseconds of CPU a request, several times
what reading a short body takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from serving.core import Core
from serving.errors import (
    NotReady,
    Overloaded,
    ServingError,
    TooLarge,
    WrongInput,
    WrongMethod,
)
from serving.line import HANDICAP_S, Priority
from serving.protocols import native
from serving.protocols.leaving import CallerLeft, Receive, unless_left
from serving.settings import ServeSettings

_log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
_METHODS = {"/predict": ("POST",), "/healthz": ("GET", "HEAD"), "/readyz": ("GET", "HEAD")}
_DEADLINE_HEADER, _PRIORITY_HEADER = b"x-deadline-ms", b"x-priority"


class Endpoint:
    """Routes `/predict`, `/healthz` and `/readyz` itself and everything else to *documentation*."""

    hot_paths = frozenset(_METHODS)

    def __init__(self, core: Core, settings: ServeSettings, documentation: AsgiApp) -> None:
        self._core = core
        self._settings = settings
        self._documentation = documentation
        self._digest = core.package.digest.encode()
        self.draining = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        if scope["type"] != "http":
            await self._documentation(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        if (methods := _METHODS.get(path)) is None:
            await self._documentation(scope, receive, send)
        elif method not in methods:
            allow = ", ".join(methods)
            await send_error(send, WrongMethod(f"{path} takes {allow}, not {method}.", allow=allow))
        elif path == "/predict":
            await self._predict(scope, receive, send)
        else:
            await self._health(path, send)

    async def _predict(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            within_ms, priority = _within_ms(scope["headers"]), _priority(scope["headers"])
            body = await _read_body(receive, max_bytes=self._settings.max_body_bytes)
            request = native.read_request(
                body, text_pair=self._core.package.config.text_pair, limits=self._settings
            )
            answer = self._core.ask(
                request.texts, request.pairs, within_ms=within_ms, priority=priority
            )
            answered = await unless_left(answer, receive)
        except CallerLeft:
            return
        except ServingError as error:
            await send_error(send, error)
            return
        except Exception:  # noqa: BLE001 - the last line of defence: a bug must not hang a client
            _log.exception("A request failed; this is a bug")
            await send_error(send, ServingError("The server failed on this request."))
            return
        labels = self._core.package.config.labels
        documents = [
            native.prediction_document(prediction, labels, all_scores=request.all_scores)
            for prediction in answered.predictions
        ]
        headers = [
            (b"x-package-digest", self._digest),
            (b"x-tokenize-ms", b"%.3f" % answered.tokenize_ms),
            (b"x-queue-ms", b"%.3f" % answered.queue_ms),
            (b"x-infer-ms", b"%.3f" % answered.infer_ms),
        ]
        await _send(send, 200, native.write_answer(documents, single=request.single), headers)

    async def _health(self, path: str, send: Send) -> None:
        """Alive as long as this answers.

        Ready when warmed up, which construction did, with work flowing, and not draining.
        """
        if path == "/readyz" and (self.draining or not self._core.healthy()):
            reason = "is shutting down" if self.draining else "has a stalled lane"
            await send_error(send, NotReady(f"This replica {reason}."))
            return
        await _send(send, 200, orjson.dumps({"status": "ok"}), [])


def _within_ms(headers: Headers) -> float:
    """Milliseconds the caller will wait, from the header; infinite without one."""
    for name, value in headers:
        if name == _DEADLINE_HEADER:
            try:
                within_ms = float(value)
            except ValueError:
                within_ms = math.nan
            if not within_ms > 0:  # NaN, too
                raise WrongInput(f"{name.decode()} must be a number of milliseconds above 0.")
            return within_ms
    return math.inf


def _priority(headers: Headers) -> Priority:
    """Who goes first when texts wait, from the header; normal without one."""
    for name, value in headers:
        if name == _PRIORITY_HEADER:
            for priority in HANDICAP_S:
                if value == priority.encode():
                    return priority
            raise WrongInput(f"{name.decode()} must be one of {', '.join(HANDICAP_S)}.")
    return "normal"


async def _read_body(receive: Receive, *, max_bytes: int) -> bytes:
    """The whole body. Raises `TooLarge` as soon as it is beyond *max_bytes*."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
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
    headers: Headers = []
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    elif isinstance(error, NotReady):
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, WrongMethod):
        headers.append((b"allow", error.allow.encode()))
    await _send(send, error.status, native.write_error(error), headers)


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    base = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": base + headers})
    await send({"type": "http.response.body", "body": body})
