"""The native protocol: `POST /predict`, one text or many, with every option there is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from serving.core import Answered
from serving.errors import WrongInput
from serving.line import Priority
from serving.package import Package, PackageConfig
from serving.protocols.asking import Asked, Written, check_texts
from serving.protocols.decoding import decoded
from serving.protocols.rendering import Shown, document
from serving.reading import Aggregate, Reading, Window
from serving.settings import ServeSettings

_EXAMPLE = 'Send {"text": "..."} or {"texts": ["...", "..."]}.'
Share = Annotated[float, Meta(ge=0, le=1)]


class WindowBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Read a document in windows as long as the model takes."""

    stride: Annotated[int, Meta(ge=0, description="Tokens that neighbouring windows share.")] = 0
    aggregate: Annotated[Aggregate, Meta(description="Of each label's logits.")] = "mean"


class PredictBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /predict`: exactly one of `text` and `texts`."""

    text: Annotated[str, Meta(examples=["Friendly staff, but the soup was cold."])] | None = None
    texts: Annotated[list[str], Meta(description="Answered by a list, in order.")] | None = None
    text_pair: Annotated[str, Meta(description="Second text; pair models only.")] | None = None
    text_pairs: Annotated[list[str], Meta(description="One for each of `texts`.")] | None = None
    scores: Annotated[Literal["all"], Meta(description="Every label's score.")] | None = None
    top_k: Annotated[int, Meta(ge=1, description="The likeliest labels, as `top`.")] | None = None
    logits: Annotated[bool, Meta(description="Every label's logit.")] = False
    threshold: (
        Annotated[Share, Meta(description="Instead of the package's; multi-label models only.")]
        | None
    ) = None
    abstain_below: (
        Annotated[Share, Meta(description="`label` is null below; single-label models only.")]
        | None
    ) = None
    truncate: Annotated[bool, Meta(description="Cut what is too long; false refuses it.")] = True
    window: WindowBody | None = None
    timings: Annotated[bool, Meta(description="Milliseconds, with each answer.")] = False
    priority: (
        Annotated[Priority, Meta(description="Bulk work lets others pass, for 10 s at most.")]
        | None
    ) = None
    deadline_ms: (
        Annotated[float, Meta(gt=0, description="What cannot be answered by then is not run.")]
        | None
    ) = None


_DECODER = msgspec.json.Decoder(PredictBody)


class Native:
    """Reads `PredictBody`, writes `rendering.PredictAnswer`: an object for `text`, else a list."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._package = package
        self._limits = limits

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:  # noqa: ARG002 - a Door
        """Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why."""
        return self.asked(decoded(_DECODER, body, hint=_EXAMPLE))

    def asked(self, given: PredictBody) -> Asked:
        """What *given* asks for. Raises as `read` does."""
        config = self._package.config
        texts, pairs = _texts(given), _pairs(given, config)
        single, field = given.text is not None, "texts" if given.text is None else "text"
        check_texts(texts, field, limits=self._limits, single=single)
        if pairs is not None:
            pair_field = field.replace("text", "text_pair")
            check_texts(pairs, pair_field, limits=self._limits, single=single)
            if len(pairs) != len(texts):
                raise WrongInput(f"texts holds {len(texts)} texts, but text_pairs {len(pairs)}.")
        window = given.window
        return Asked(
            texts=texts,
            pairs=pairs,
            reading=Reading(
                truncate=given.truncate,
                window=None if window is None else _window(window),
            ),
            within_ms=math.inf if given.deadline_ms is None else given.deadline_ms,
            priority=given.priority,
            write=partial(self._write, shown=_shown(given, config), single=single),
        )

    def _write(self, answered: Answered, *, shown: Shown, single: bool) -> Written:
        documents = [
            document(answer, self._package, shown, tokenize_ms=answered.tokenize_ms)
            for answer in answered.answers
        ]
        return Written(body=msgspec.json.encode(documents[0] if single else documents))


def _window(given: WindowBody) -> Window:
    return Window(stride=given.stride, aggregate=given.aggregate)


def _texts(given: PredictBody) -> list[str]:
    if given.text is not None and given.texts is None:
        return [given.text]
    if given.texts is not None and given.text is None:
        return given.texts
    seen = "neither is" if given.text is None else "both are"
    raise WrongInput(f"Exactly one of text and texts is needed; {seen} there.", hint=_EXAMPLE)


def _pairs(given: PredictBody, config: PackageConfig) -> list[str] | None:
    """Second texts, for a model that compares two; exactly the field that goes with the first."""
    single = given.text is not None
    wanted, other = ("text_pair", "text_pairs") if single else ("text_pairs", "text_pair")
    if getattr(given, other) is not None:
        raise WrongInput(f"{other} goes with {'texts' if single else 'text'}; send {wanted}.")
    pairs = getattr(given, wanted)
    if config.text_pair != (pairs is not None):
        missing = "is needed: this model compares two texts"
        raise WrongInput(f"{wanted} {missing if config.text_pair else 'is not understood'}.")
    return [pairs] if isinstance(pairs, str) else pairs


def _shown(given: PredictBody, config: PackageConfig) -> Shown:
    multi = config.task == "multi_label"
    if given.threshold is not None and not multi:
        raise WrongInput("threshold is for multi-label models.", hint="Send abstain_below.")
    if given.abstain_below is not None and multi:
        raise WrongInput("abstain_below is for single-label models.", hint="Send threshold.")
    return Shown(
        scores=given.scores == "all",
        top_k=given.top_k,
        logits=given.logits,
        timings=given.timings,
        threshold=given.threshold,
        abstain_below=given.abstain_below or 0.0,
    )
