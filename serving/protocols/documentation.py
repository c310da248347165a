"""The pages beside the hot path: `/docs`, `/openapi.json`, `/info`, and errors for the rest.

The page is a static file of ours: the usual ones load scripts from a content network, which an
endpoint behind a firewall does not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from serving.errors import ServingError, UnknownPath, WrongMethod
from serving.lanes import Lanes
from serving.line import HANDICAP_S
from serving.package import Package
from serving.protocols.native import write_error

_PAGE = Path(__file__).parent.parent / "static" / "docs.html"
_EXAMPLES = 16
_HEADERS = [
    {
        "name": "x-deadline-ms",
        "in": "header",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Milliseconds you will wait; what cannot be answered by then is not run.",
    },
    {
        "name": "x-priority",
        "in": "header",
        "schema": {"type": "string", "enum": list(HANDICAP_S), "default": "normal"},
        "description": "Who goes first when texts wait; a low one is passed for 10 s at most.",
    },
]
_PATHS = "There are POST /predict, GET /docs, /openapi.json, /info, /healthz, /readyz."


class PredictBody(BaseModel):
    """Body of `POST /predict`: exactly one of `text` and `texts`."""

    text: str | None = Field(default=None, examples=["Friendly staff, but the soup was cold."])
    texts: list[str] | None = Field(default=None, description="Answered by a list, in order.")
    text_pair: str | None = Field(default=None, description="Second text; pair models only.")
    text_pairs: list[str] | None = Field(default=None, description="One for each of `texts`.")
    all_scores: bool = Field(default=False, description="Add the score of every label.")


class ScoredLabel(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class PredictAnswer(BaseModel):
    """One answer. `label` is null when no label of a multi-label model reaches its threshold."""

    label: str | None
    score: float
    labels: list[ScoredLabel] | None = Field(default=None, description="Multi-label models only.")
    scores: dict[str, float] | None = Field(default=None, description="With `all_scores` only.")


class ErrorDetail(BaseModel):
    """What went wrong, and the way out."""

    type: str
    message: str
    hint: str


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


def build_documentation(
    package: Package, lanes: Lanes, operations: Callable[[], dict[str, Any]]
) -> FastAPI:
    """The FastAPI app beside the hot path. operations: live numbers for `/info`."""
    app = FastAPI(title="miniml", version=package.digest[:12], docs_url=None, redoc_url=None)
    about = describe(package, lanes)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(_PAGE, media_type="text/html")

    @app.get("/info", summary="What is served, what it was proved to do, and how it runs")
    async def info() -> dict[str, Any]:
        return about | {"now": operations()}

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        allow = {name.lower(): value for name, value in (error.headers or {}).items()}.get("allow")
        refusal: ServingError
        if allow:
            message = f"{path} takes {allow}, not {request.method}."
            refusal = WrongMethod(message, allow=allow)
        else:
            refusal = UnknownPath(f"Nothing is served at {path}.", hint=_PATHS)
        return Response(
            write_error(refusal), refusal.status, error.headers, media_type="application/json"
        )

    _add_hot_paths(app)
    return app


def describe(package: Package, lanes: Lanes) -> dict[str, Any]:
    """`/info`: what is served, its gates and lineage, and how it runs."""
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
        "batch_invariant": config.batch_invariant,
        "base_model": config.base_model,
        "lineage": dict(package.manifest.lineage),
        "gates": package.gates,
        "lanes": {"count": lanes.count, "threads": lanes.threads},
        "examples": [{"text": g.text, "text_pair": g.text_pair} for g in golden],
    }


def _add_hot_paths(app: FastAPI) -> None:
    """Put the paths that never reach FastAPI into its OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (PredictBody, PredictAnswer, ErrorBody):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        document["paths"]["/predict"] = {"post": _predict_operation()}
        for path, summary in (("/healthz", "The process is alive"), ("/readyz", "It can answer")):
            document["paths"][path] = {
                "get": {"summary": summary, "responses": {"200": {"description": "Yes"}}}
            }
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _predict_operation() -> dict[str, Any]:
    def content(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    answer = {"$ref": "#/components/schemas/PredictAnswer"}
    either = {"oneOf": [answer, {"type": "array", "items": answer}]}
    errors = {
        "400": "Not JSON",
        "413": "Too large",
        "422": "A field is missing, empty or of the wrong type",
        "429": "Overloaded; see Retry-After",
        "500": "The model failed on a text",
        "503": "Not ready; see Retry-After",
        "504": "Not answered within x-deadline-ms",
    }
    return {
        "summary": "Classify one text, or many",
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": content("PredictBody")},
        "responses": {
            "200": {
                "description": "One answer for `text`, a list in order for `texts`",
                "content": {"application/json": {"schema": either}},
            },
            **{
                status: {"description": text, "content": content("ErrorBody")}
                for status, text in errors.items()
            },
        },
    }
