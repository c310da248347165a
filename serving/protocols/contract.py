"""The OpenAPI document of the paths that never reach FastAPI, made of the types that are read there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from serving import errors
from serving.line import HANDICAP_S
from serving.package import Package
from serving.protocols import oip
from serving.protocols.classify import ClassifyAnswer, ClassifyBody
from serving.protocols.huggingface import InputsBody
from serving.protocols.inference import version_of
from serving.protocols.lines import LINES
from serving.protocols.native import PredictBody
from serving.protocols.rendering import ErrorBody, PredictAnswer, ScoredLabel
from serving.rollout.wanted import WantedChange
from serving.shadow.report import ShadowReport

Json = dict[str, Any]
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
        "schema": {"type": "string", "enum": list(HANDICAP_S), "default": "interactive"},
        "description": "Who goes first when texts wait; bulk work is passed for 10 s at most.",
    },
]
_TYPES = (
    *(PredictBody, PredictAnswer, InputsBody, ScoredLabel, ClassifyBody, ClassifyAnswer),
    *(oip.InferBody, oip.InferAnswer, oip.ServerMetadata, oip.ModelMetadata, ErrorBody),
    *(WantedChange, ShadowReport),
)
_REFERENCE = "#/components/schemas/{name}"


def add_contract(document: Json, package: Package) -> Json:
    """*document* with every path that an endpoint answers itself, and their types."""
    _, types = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCE)
    document.setdefault("components", {}).setdefault("schemas", {}).update(types)
    document["paths"].update(_paths(package))
    return document


def refusals() -> dict[int, str]:
    """Status -> the errors that have it, each with what it means; of requests, not of the start."""
    found: dict[int, list[str]] = defaultdict(list)
    for kind in request_errors():
        found[kind.status].append(f"`{kind.__name__}`: {_meaning(kind)}")
    return {status: " ".join(lines) for status, lines in found.items()}


def error_table() -> str:
    """What a request can meet, as the Markdown of `docs/api.md`."""
    rows = [
        f"| {kind.status} | `{kind.__name__}` | {_meaning(kind)} |" for kind in request_errors()
    ]
    return "\n".join(["| status | type | meaning |", "|---|---|---|", *rows])


def request_errors() -> list[type[errors.ServingError]]:
    """Every error that a request can meet, by status."""
    kinds = (
        kind
        for kind in _kinds(errors.ServingError)
        if kind.__module__ == errors.__name__ and kind not in errors.START_UP
    )
    return sorted(kinds, key=lambda kind: kind.status)


def _meaning(kind: type[errors.ServingError]) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def _kinds(kind: type[errors.ServingError]) -> Iterator[type[errors.ServingError]]:
    """Leaves of the exception tree: what is raised."""
    inner = kind.__subclasses__()
    for child in inner:
        yield from _kinds(child)
    if not inner:
        yield kind


def _paths(package: Package) -> Json:
    name = package.config.name
    answer, scored = _type(PredictAnswer), _type(ScoredLabel)
    lists = {"type": "array", "items": {"type": "array", "items": scored}}
    predicted = _either(answer, scored, lists)
    model = f"/v2/models/{name}"
    version = f"{model}/versions/{version_of(package)}"
    infer = _asking("Answer a tensor of texts", _type(oip.InferBody), _type(oip.InferAnswer))
    predict = _asking("Classify", {"anyOf": [_type(PredictBody), _type(InputsBody)]}, predicted)
    for kind in LINES[:1]:
        predict["post"]["requestBody"]["content"][kind.decode()] = {"schema": _type(PredictBody)}
        lines = {"anyOf": [answer, {"type": "array", "items": answer}, _type(ErrorBody)]}
        predict["post"]["responses"]["200"]["content"][kind.decode()] = {"schema": lines}
    return {
        "/predict": predict,
        "/": _asking("Classify, as Hugging Face's client asks", _type(InputsBody), lists),
        "/v1/classify": _asking("Classify, as in vLLM", _type(ClassifyBody), _type(ClassifyAnswer)),
        f"{model}/infer": infer,
        f"{version}/infer": infer,
        model: _saying("The model's tensors", _type(oip.ModelMetadata)),
        version: _saying("The model's tensors", _type(oip.ModelMetadata)),
        "/v2": _saying("What answers here", _type(oip.ServerMetadata)),
        **{path: _probe("It can answer") for path in (f"{model}/ready", f"{version}/ready")},
        **{path: _probe("It can answer") for path in ("/readyz", "/v2/health/ready")},
        **{path: _probe("The process is alive") for path in ("/healthz", "/health")},
        "/v2/health/live": _probe("The process is alive"),
    }


def _type(kind: type) -> Json:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _either(answer: Json, scored: Json, lists: Json) -> Json:
    """Of `text`, of `texts`, of one text as `inputs`, of several."""
    of_many = [{"type": "array", "items": each} for each in (answer, scored)]
    return {"anyOf": [answer, *of_many, lists]}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _asking(summary: str, body: Json, answer: Json) -> Json:
    refused = {
        str(status): {"description": told, "content": _content(_type(ErrorBody))}
        for status, told in refusals().items()
    }
    return {
        "post": {
            "summary": summary,
            "parameters": _HEADERS,
            "requestBody": {"required": True, "content": _content(body)},
            "responses": {
                "200": {"description": "Answers", "content": _content(answer)},
                **refused,
            },
        }
    }


def _saying(summary: str, answer: Json) -> Json:
    return {
        "get": {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": _content(answer)}},
        }
    }


def _probe(summary: str) -> Json:
    return {
        "get": {
            "summary": summary,
            "responses": {
                "200": {"description": "Yes"},
                "503": {"description": "No", "content": _content(_type(ErrorBody))},
            },
        }
    }
