"""The native protocol: `POST /predict`. Reads a body into texts, writes predictions as JSON.

Pure: bytes in, bytes out; it does not know who asks or how the answer is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.engine import Prediction
from serving.errors import MalformedBody, ServingError, TooLarge, WrongInput
from serving.settings import ServeSettings

_FIELDS = ("text", "texts", "text_pair", "text_pairs", "all_scores")
_EXAMPLE = 'Send {"text": "..."} or {"texts": ["...", "..."]}.'


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """What was asked. single: answer with one object instead of a list."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    single: bool
    all_scores: bool


def read_request(body: bytes, *, text_pair: bool, limits: ServeSettings) -> PredictRequest:
    """The request in *body*. text_pair: whether the model takes two texts.

    Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why.
    """
    document = _object(body)
    all_scores = document.get("all_scores", False)
    if not isinstance(all_scores, bool):
        raise WrongInput("all_scores must be true or false.")
    if ("text" in document) == ("texts" in document):
        seen = "both are" if "text" in document else "neither is"
        raise WrongInput(f"Exactly one of text and texts is needed; {seen} there.", hint=_EXAMPLE)
    single = "text" in document
    field, pair_field = ("text", "text_pair") if single else ("texts", "text_pairs")
    texts = _texts(document[field], field, single=single, limits=limits)
    pairs = None
    if text_pair != (pair_field in document):
        problem = "is needed: this model compares two texts" if text_pair else "is not understood"
        raise WrongInput(f"{pair_field} {problem}.")
    if text_pair:
        pairs = _texts(document[pair_field], pair_field, single=single, limits=limits)
        if len(pairs) != len(texts):
            raise WrongInput(f"texts holds {len(texts)} texts, but text_pairs {len(pairs)}.")
    return PredictRequest(texts=texts, pairs=pairs, single=single, all_scores=all_scores)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON: {error}.", hint=_EXAMPLE) from error
    if not isinstance(document, dict):
        raise MalformedBody("The body must be a JSON object.", hint=_EXAMPLE)
    if unknown := sorted(set(document) - set(_FIELDS)):
        raise WrongInput(f"Unknown field {unknown[0]!r}; known are {', '.join(_FIELDS)}.")
    return document


def _texts(value: Any, field: str, *, single: bool, limits: ServeSettings) -> tuple[str, ...]:
    if single:
        return (_text(value, field, limits),)
    if not isinstance(value, list):
        raise WrongInput(f"{field} must be a list of strings, not {_kind(value)}.", hint=_EXAMPLE)
    if not value:
        raise WrongInput(f"{field} is empty; send at least one text.")
    if len(value) > limits.max_texts:
        raise TooLarge(
            f"{field} holds {len(value)} texts; the limit is {limits.max_texts} a call.",
            hint="Send several calls.",
        )
    return tuple(_text(text, f"{field}[{i}]", limits) for i, text in enumerate(value))


def _text(value: Any, field: str, limits: ServeSettings) -> str:
    if not isinstance(value, str):
        raise WrongInput(f"{field} must be a string, not {_kind(value)}.")
    if not value.strip():
        raise WrongInput(f"{field} is empty.")
    if len(value) > limits.max_text_chars:
        raise TooLarge(
            f"{field} has {len(value)} characters; the limit is {limits.max_text_chars}.",
            hint="Send the part that matters; the model reads only its first tokens anyway.",
        )
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a string")


def prediction_document(
    prediction: Prediction, labels: Sequence[str], *, all_scores: bool
) -> dict[str, Any]:
    """One answer as it goes over the wire; `labels` of multi-label models, `scores` on request."""
    document: dict[str, Any] = {"label": prediction.label, "score": prediction.score}
    if prediction.labels is not None:
        document["labels"] = [{"label": name, "score": score} for name, score in prediction.labels]
    if all_scores:
        document["scores"] = dict(zip(labels, prediction.scores, strict=True))
    return document


def write_answer(documents: Sequence[dict[str, Any]], *, single: bool) -> bytes:
    """The body of a 200: one object, or a list in the order of the texts."""
    return orjson.dumps(documents[0] if single else documents)


def write_error(error: ServingError) -> bytes:
    """The one error body there is."""
    return orjson.dumps(
        {"error": {"type": type(error).__name__, "message": str(error), "hint": error.hint}}
    )
