"""The shapes of Hugging Face: `InferenceClient` asks at `/`, text-embeddings-inference at `/predict`.

Both send `inputs`. A list of two texts is two texts; a pair is a list inside the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from serving.core import Answered
from serving.engine import prediction, probabilities
from serving.errors import WrongInput
from serving.package import Package, Task
from serving.protocols.asking import Asked, Written, check_texts
from serving.protocols.decoding import decoded
from serving.protocols.native import Native
from serving.protocols.rendering import ScoredLabel, likeliest
from serving.reading import Reading
from serving.settings import ServeSettings
from serving.work import Answer

_EXAMPLE = 'Send {"inputs": "..."} or {"inputs": ["...", "..."]}.'
_PAIR = 2
Function = Literal["softmax", "sigmoid", "none"]


class Parameters(Struct, frozen=True):
    """As `huggingface_hub` sends them; unknown ones change nothing."""

    top_k: Annotated[int, Meta(ge=1)] | None = None
    function_to_apply: Function | None = None


class InputsBody(Struct, frozen=True, kw_only=True):
    """Body with `inputs`: a text, or a list of texts or of [text, second text]."""

    inputs: str | list[str | list[str]]
    parameters: Parameters | None = None
    raw_scores: Annotated[bool, Meta(description="Logits instead of probabilities.")] = False
    truncate: bool = True
    truncation_direction: Annotated[
        Literal["right", "Right"], Meta(description="The end is what is cut.")
    ] = "Right"


class _WithInputs(Struct, frozen=True):
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(InputsBody)
_SEEN = msgspec.json.Decoder(_WithInputs)


class HuggingFace:
    """nested: answer one text by a list in a list, as the Hub does, and text-embeddings-inference not."""

    def __init__(self, package: Package, limits: ServeSettings, *, nested: bool) -> None:
        self._package = package
        self._limits = limits
        self._nested = nested

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:  # noqa: ARG002 - a Door
        """Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why."""
        given = decoded(_DECODER, body, hint=_EXAMPLE)
        single = isinstance(given.inputs, str)
        rows: Sequence[str | list[str]]
        rows = [given.inputs] if isinstance(given.inputs, str) else given.inputs
        texts, pairs = self._split(rows)
        check_texts(texts, "inputs", limits=self._limits, single=single)
        if pairs is not None:
            check_texts(pairs, "inputs", limits=self._limits)
        return Asked(
            texts=texts,
            pairs=pairs,
            reading=Reading(truncate=given.truncate),
            write=partial(self._write, given=given, single=single),
        )

    def _split(self, rows: Sequence[str | list[str]]) -> tuple[list[str], list[str] | None]:
        if not self._package.config.text_pair:
            singles = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
            if not all(isinstance(row, str) for row in singles):
                raise WrongInput("This model reads one text; inputs holds a pair or more.")
            return [row for row in singles if isinstance(row, str)], None
        pairs = [row for row in rows if isinstance(row, list) and len(row) == _PAIR]
        if len(pairs) < len(rows):
            raise WrongInput("This model compares two texts; send [[text, second text], ...].")
        return [text for text, _ in pairs], [second for _, second in pairs]

    def _write(self, answered: Answered, *, given: InputsBody, single: bool) -> Written:
        lists = [self._scored(answer, given) for answer in answered.answers]
        flat = single and not self._nested
        return Written(body=msgspec.json.encode(lists[0] if flat else lists))

    def _scored(self, answer: Answer, given: InputsBody) -> list[ScoredLabel]:
        parameters = given.parameters or Parameters()
        apply = "none" if given.raw_scores else parameters.function_to_apply
        scores = self._scores(answer, apply)
        ranked = likeliest(scores, self._package.config.labels, parameters.top_k)
        return [ScoredLabel(label=label, score=score) for label, score in ranked]

    def _scores(self, answer: Answer, apply: Function | None) -> list[float]:
        if apply is None:
            return list(prediction(answer.logits, self._package).scores)
        if apply == "none":
            return [float(logit) for logit in answer.logits]
        task: Task = "single_label" if apply == "softmax" else "multi_label"
        shares = probabilities(answer.logits, task, self._package.config.temperature)
        return [float(share) for share in shares]


class PredictOrInputs:
    """`POST /predict`: ours, or text-embeddings-inference's, told by its field `inputs`."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._native = Native(package, limits)
        self._inputs = HuggingFace(package, limits, nested=False)

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """As the door that the body is for."""
        # In a text its quotes would be escaped; as a whole text it is no field, so look closer.
        if b'"inputs"' in body and decoded(_SEEN, body).inputs is not msgspec.UNSET:
            return self._inputs.read(body, headers)
        return self._native.read(body, headers)
