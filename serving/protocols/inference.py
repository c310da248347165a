"""What a call of `infer` asks and gets in the Open Inference Protocol, whichever form tensors have.

`oip` reads and writes them as JSON and raw bytes, `messages` as protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from serving.core import Answered
from serving.engine import prediction
from serving.errors import WrongInput
from serving.package import Package
from serving.protocols.asking import Asking, check_texts
from serving.protocols.tensors import Values, input_metadata, output_metadata
from serving.settings import ServeSettings


def version_of(package: Package) -> str:
    """As it is shown everywhere."""
    return package.digest[:12]


class Inference:
    """Of *package*, within *limits*."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._package = package
        self._limits = limits
        self._inputs = {tensor.name for tensor in input_metadata(package)}
        self._outputs = [tensor.name for tensor in output_metadata(package)]

    def question(self, texts: Mapping[str, Sequence[str]]) -> Asking:
        """*texts* by name of their input. Raises `WrongInput`, `TooLarge`."""
        if texts.keys() != self._inputs:
            raise WrongInput(
                f"inputs must be {_listed(self._inputs)}, each once; got {_listed(texts)}."
            )
        for name, values in texts.items():
            check_texts(values, name, limits=self._limits)
        pairs = texts.get("text_pair")
        if pairs is not None and len(pairs) != len(texts["text"]):
            raise WrongInput(f"text holds {len(texts['text'])} texts, but text_pair {len(pairs)}.")
        return Asking(texts=texts["text"], pairs=pairs)

    def outputs(self, names: Sequence[str]) -> Sequence[str]:
        """The outputs that are wanted, in order; where none is named, all. Raises `WrongInput`."""
        if unknown := set(names) - set(self._outputs):
            raise WrongInput(
                f"There is no output {_listed(unknown)}, but {_listed(self._outputs)}."
            )
        return names or self._outputs

    def values(self, answered: Answered) -> dict[str, Values]:
        """Every output by its name."""
        given = [prediction(answer.logits, self._package) for answer in answered.answers]
        return {
            "label": [one.label or "" for one in given],
            "score": np.array([one.score for one in given], dtype=np.float32),
            "scores": np.array([one.scores for one in given], dtype=np.float32),
            "logits": np.stack([answer.logits for answer in answered.answers]),
        }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
