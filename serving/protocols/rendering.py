"""Answers as documents: what a row of logits means, shown as the caller asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from serving.engine import prediction
from serving.errors import ServingError
from serving.package import Package
from serving.work import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What of an answer is shown, beside label and score."""

    scores: bool = False
    top_k: int | None = None
    logits: bool = False
    timings: bool = False
    threshold: float | None = None
    abstain_below: float = 0.0


class ScoredLabel(Struct, frozen=True):
    """A label and its probability."""

    label: str
    score: float


class Timings(Struct, frozen=True):
    """Milliseconds: tokenizing the whole call, this text's wait, and its batch on the model."""

    tokenize_ms: float
    queue_ms: float
    infer_ms: float


class PredictAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer. `label` is null when the likeliest is below its threshold."""

    label: str | None
    score: float
    labels: Annotated[list[ScoredLabel], Meta(description="Multi-label models only.")] | None = None
    top: Annotated[list[ScoredLabel], Meta(description="With `top_k` only.")] | None = None
    scores: Annotated[dict[str, float], Meta(description="With `scores` only.")] | None = None
    logits: Annotated[dict[str, float], Meta(description="With `logits` only.")] | None = None
    timings: Timings | None = None


class ErrorDetail(Struct, frozen=True):
    """What went wrong, and the way out."""

    type: str
    message: str
    hint: str


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


def document(
    answer: Answer, package: Package, shown: Shown, *, tokenize_ms: float = 0.0
) -> PredictAnswer:
    """One answer as it goes over the wire."""
    given = prediction(
        answer.logits, package, threshold=shown.threshold, abstain_below=shown.abstain_below
    )
    names = package.config.labels
    by_name = zip(names, given.scores, strict=True)
    return PredictAnswer(
        label=given.label,
        score=given.score,
        labels=None if given.labels is None else _scored(given.labels),
        top=_scored(likeliest(given.scores, names, shown.top_k)) if shown.top_k else None,
        scores=dict(by_name) if shown.scores else None,
        logits=dict(zip(names, answer.logits.tolist(), strict=True)) if shown.logits else None,
        timings=Timings(
            tokenize_ms=round(tokenize_ms, 3),
            queue_ms=round(answer.queue_ms, 3),
            infer_ms=round(answer.infer_ms, 3),
        )
        if shown.timings
        else None,
    )


def likeliest(
    scores: Iterable[float], names: Iterable[str], count: int | None
) -> list[tuple[str, float]]:
    """Labels with their scores, likeliest first; *count* of them, or all."""
    pairs = sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])
    return pairs[:count]


def _scored(pairs: Iterable[tuple[str, float]]) -> list[ScoredLabel]:
    return [ScoredLabel(label=label, score=score) for label, score in pairs]


def write_error(error: ServingError) -> bytes:
    """The one error body there is."""
    return msgspec.json.encode(error_body(error))


def error_body(error: ServingError) -> ErrorBody:
    """As a value, for doors that wrap it."""
    detail = ErrorDetail(type=type(error).__name__, message=str(error), hint=error.hint)
    return ErrorBody(error=detail)
