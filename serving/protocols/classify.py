"""`POST /v1/classify` as vLLM has it: texts as `input`, answers as `data` with all probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from functools import partial

import msgspec
from msgspec import Struct

from serving.core import Answered
from serving.engine import prediction
from serving.errors import WrongInput
from serving.package import Package
from serving.protocols.asking import Asked, Written, check_texts
from serving.protocols.decoding import decoded
from serving.settings import ServeSettings


class ClassifyBody(Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/classify`. model: when given, the name of the model that is served."""

    input: str | list[str]
    model: str | None = None


class Classified(Struct, frozen=True):
    """One text's answer; probabilities in the order of `/info`'s labels."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class Usage(Struct, frozen=True):
    """Tokens read, special ones included."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyAnswer(Struct, frozen=True):
    """The body of a 200."""

    id: str
    object: str
    created: int
    model: str
    data: list[Classified]
    usage: Usage


_DECODER = msgspec.json.Decoder(ClassifyBody)


class Classify:
    """Of single texts; a model that compares two has no place for the second here."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._package = package
        self._limits = limits

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:  # noqa: ARG002 - a Door
        """Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why."""
        config = self._package.config
        given = decoded(_DECODER, body, hint='Send {"input": "..."}.')
        if config.text_pair:
            raise WrongInput("This model compares two texts; ask at /predict.")
        if given.model not in (None, config.name):
            raise WrongInput(f"model is {given.model!r}, but {config.name!r} is served here.")
        single = isinstance(given.input, str)
        texts = [given.input] if isinstance(given.input, str) else given.input
        check_texts(texts, "input", limits=self._limits, single=single)
        return Asked(texts=texts, write=partial(_write, self._package))


def _write(package: Package, answered: Answered) -> Written:
    data = []
    for index, answer in enumerate(answered.answers):
        given = prediction(answer.logits, package)
        scores = list(given.scores)
        data.append(Classified(index, given.label, scores, len(scores)))
    body = ClassifyAnswer(
        id=f"classify-{uuid.uuid4().hex}",
        object="list",
        created=int(time.time()),
        model=package.config.name,
        data=data,
        usage=Usage(prompt_tokens=answered.tokens, total_tokens=answered.tokens),
    )
    return Written(body=msgspec.json.encode(body))
