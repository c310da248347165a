"""The pages beside the hot path: `/docs`, `/openapi.json`, `/info`, and errors for the rest.

The page is a static file of ours: the usual ones load scripts from a content network, which an
endpoint behind a firewall does not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from serving.core import Core
from serving.errors import ServingError, UnknownPath, WrongMethod
from serving.lanes import Lanes
from serving.observing.metrics import CONTENT_TYPE
from serving.package import Package
from serving.protocols.contract import add_contract
from serving.protocols.desk import Desk
from serving.protocols.headers import about_error
from serving.protocols.rendering import ErrorBody, write_error
from serving.protocols.replicas import Replicas
from serving.request import OTHER
from serving.request import Request as Asking
from serving.shadow.report import ShadowReport

_PAGES = Path(__file__).parent.parent / "static"
# Scripts and styles stand in the page, and it asks nobody but this server.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_EXAMPLES = 16
_DIGITS = 12  # of a digest, as versions are shown everywhere
_PATHS = "What is served stands in /openapi.json, and for people at /docs."


def build_documentation(
    core: Core,
    replicas: Replicas,
    desk: Desk,
    models: Callable[[], list[dict[str, Any]]] | None = None,
) -> FastAPI:
    """The FastAPI app beside the hot path; *desk* is told of what is refused here.

    models: every model that is served, where there are several.
    """
    package = core.package
    app = FastAPI(title="miniml", version=package.digest[:12], docs_url=None, redoc_url=None)
    about = describe(package, core.lanes)

    @app.get("/info", summary="What is served, what it was proved to do, and how it runs")
    async def info() -> dict[str, Any]:
        several = {"models": models()} if models else {}
        return about | {"now": core.operations()} | several

    @app.get("/cache", summary="Answers that are known, and how often they were asked for")
    async def cache_numbers() -> dict[str, float]:
        return await replicas.cache_numbers()

    @app.delete("/cache", summary="Forget them, in every replica and in Redis")
    async def clear_cache() -> dict[str, int]:
        return {"cleared": await replicas.clear_cache()}

    _add_metrics(app, replicas)
    _add_shadow(app, replicas)
    if models:
        _add_index(app, models)
    _add_pages(app)
    _add_errors(app, desk)
    _add_hot_paths(app, package)
    return app


def _add_metrics(app: FastAPI, replicas: Replicas) -> None:
    @app.get(
        "/metrics",
        summary="For Prometheus, of every replica",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return PlainTextResponse(await replicas.metrics(), media_type=CONTENT_TYPE)


def _add_shadow(app: FastAPI, replicas: Replicas) -> None:
    @app.get(
        "/shadow",
        summary="How far the candidate beside what is served agrees with it",
        response_class=Response,
        responses={
            200: {"content": _json_of(ShadowReport)},
            404: {"description": "There is none", "content": _json_of(ErrorBody)},
        },
    )
    async def shadow() -> Response:
        report = msgspec.json.encode(await replicas.shadow())
        return Response(report, media_type="application/json")


def _add_index(app: FastAPI, models: Callable[[], list[dict[str, Any]]]) -> None:
    @app.post("/v2/repository/index", summary="Every model, as Triton's clients ask for them")
    async def index() -> list[dict[str, str]]:
        return [
            {
                "name": model["name"],
                "version": model["digest"][:_DIGITS],
                "state": "READY" if model["loaded"] else "UNAVAILABLE",
                "reason": model["refused"] or ("" if model["loaded"] else "loaded when asked for"),
            }
            for model in models()
        ]


def _json_of(kind: type) -> dict[str, Any]:
    """A body, by the type's schema in the contract."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def playground() -> Response:
        return FileResponse(_PAGES / "index.html", media_type="text/html", headers=_PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(_PAGES / "docs.html", media_type="text/html", headers=_PAGE_HEADERS)


def _add_errors(app: FastAPI, desk: Desk) -> None:
    """The one error body here, too."""

    @app.exception_handler(ServingError)
    @app.exception_handler(Exception)
    async def refused(request: Request, error: Exception) -> Response:
        told = desk.refused(Asking(door=OTHER, id=request.headers.get("x-request-id", "")), error)
        headers = {name.decode(): value.decode() for name, value in about_error(told)}
        return Response(write_error(told), told.status, headers, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        allow = {name.lower(): value for name, value in (error.headers or {}).items()}.get("allow")
        if allow:
            message = f"{path} takes {allow}, not {request.method}."
            return await refused(request, WrongMethod(message, allow=allow))
        hint = "The paths there are stand in /openapi.json, for people at /docs."
        return await refused(request, UnknownPath(f"Nothing is served at {path}.", hint=hint))


def describe(package: Package, lanes: Lanes) -> dict[str, Any]:
    """`/info`: what is served, its gates and lineage, how it runs; also as text-embeddings-inference."""
    config = package.config
    golden = package.golden()[:_EXAMPLES]
    return {
        "name": config.name,
        "package_digest": package.digest,
        "task": config.task,
        "text_pair": config.text_pair,
        "labels": list(config.labels),
        "max_length_tokens": config.max_length,
        "precision": config.precision,
        "canonicalizer": config.canonicalizer,
        "batch_invariant": config.batch_invariant,
        "base_model": config.base_model,
        "lineage": dict(package.manifest.lineage),
        "gates": package.gates,
        "lanes": {"count": lanes.count, "threads": lanes.threads},
        "model_id": config.base_model,
        "model_sha": package.digest,
        "model_dtype": config.precision,
        "model_type": {
            "classifier": {
                "id2label": dict(enumerate(config.labels)),
                "label2id": {label: place for place, label in enumerate(config.labels)},
            }
        },
        "max_input_length": config.max_length,
        "auto_truncate": True,
        "examples": [{"text": g.text, "text_pair": g.text_pair} for g in golden],
    }


def _add_hot_paths(app: FastAPI, package: Package) -> None:
    """Put the paths that never reach FastAPI into its OpenAPI document."""
    generate = app.openapi
    app.openapi = lambda: add_contract(generate(), package)  # type: ignore[method-assign]
