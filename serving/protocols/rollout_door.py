"""`GET /rollout` and `PUT /rollout`: what is served, what should be, and a change of that."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from serving.access.keys import is_loopback
from serving.errors import Forbidden, TooLarge, WrongMedia
from serving.protocols.rendering import ErrorBody
from serving.rollout.wanted import Wanted, WantedChange, read_change
from serving.settings import ServeSettings

_MAX_BYTES = 65_536
_PATH = "/rollout"
_JSON = "application/json"


class Rollouts(Protocol):
    """How all replicas of an application follow what is wanted."""

    async def states(self) -> list[dict[str, Any]]:
        """Of every replica, as `Rollout.state`."""
        ...

    async def change(self, change: WantedChange) -> Wanted:
        """From now on something else is wanted. Raises `Conflict`, `WrongInput`."""
        ...


def add_rollout(app: FastAPI, rollouts: Rollouts, settings: ServeSettings) -> None:
    """Both paths; who may change something is whoever has an admin's key, or sits on this machine."""

    @app.get(_PATH, summary="What is wanted, and which package each replica answers with")
    async def rollout() -> dict[str, Any]:
        return rollout_document(await rollouts.states())

    reference = "#/components/schemas/{name}"
    (body,), _ = msgspec.json.schema_components([WantedChange], ref_template=reference)

    @app.put(
        _PATH,
        summary="Serve another package, in all replicas, without a request that fails",
        status_code=202,
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"schema": body}}}},
        responses={
            status: {"description": told, "content": {_JSON: {"schema": _error()}}}
            for status, told in _REFUSALS.items()
        },
    )
    async def change(request: Request) -> Response:
        refuse_strangers(request, settings)
        wanted = await rollouts.change(read_change(await _body(request)))
        return JSONResponse(msgspec.to_builtins(wanted), 202)


_REFUSALS = {
    400: "No JSON",
    403: "Nobody may change this server, or you may not",
    409: "Another revision is wanted by now",
    413: "More than 64 KiB",
    415: "Not sent as application/json",
    422: "No change",
}


def refuse_strangers(request: Request, settings: ServeSettings) -> None:
    """Raise `Forbidden` or `WrongMedia` for who may not change the server.

    A web page that a user of this machine looks at is a stranger, too: it can send no JSON to another
    origin unasked, and by a name of its own that leads here it comes with that name as host.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise WrongMedia(f"The body must be sent as {_JSON}, not {kind[:100] or 'without a type'}.")
    if settings.keys is not None:  # the gate has let in an admin's key alone
        return
    host = request.headers.get("host", "")
    if not settings.rollout_without_key:
        raise Forbidden(
            "Without keys nobody may change this server.",
            hint="Start it with --keys; an admin's key may (miniml keys create NAME --admin).",
        )
    if not (is_loopback(_name(host)) and _is_here(request)):
        raise Forbidden(f"Only this machine may change this server, not who calls it {host[:100]}.")


def rollout_document(states: list[dict[str, Any]]) -> dict[str, Any]:
    """What is wanted, once, and the rest of every replica's state."""
    newest = max((state["wanted"] for state in states), key=lambda wanted: wanted.revision)
    replicas = [
        {name: value for name, value in state.items() if name != "wanted"} for state in states
    ]
    replicas.sort(key=lambda replica: str(replica["replica"]))
    return {"wanted": msgspec.to_builtins(newest), "replicas": replicas}


def _is_here(request: Request) -> bool:
    """Whether the caller, or HAProxy for him, is on this machine.

    Replicas listen on every interface; HAProxy, which asks them by the machine's own address, does not.
    """
    client = request.client.host if request.client else ""
    server = request.scope.get("server") or ("", 0)
    return is_loopback(client) or client == server[0]


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise TooLarge(f"A change has no more than {_MAX_BYTES} bytes.")
    return body


def _name(host: str) -> str:
    """Without the port; as in `[::1]:8000`."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _error() -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}
