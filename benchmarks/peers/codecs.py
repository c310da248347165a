"""What a peer is asked and how its answer is read, where its own protocol is not ours. Pure.

No adapter stands between client and peer: that would slow it down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JSON = {"content-type": "application/json"}
MODEL_NAME = "classifier"  # what MLServer and Infinity are told that the model is called


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How one text is asked for. path: of the POST. body: of a text. label: in an answer's JSON.

    `label` raises KeyError, TypeError, IndexError or ValueError for an answer of another shape.
    """

    path: str
    body: Callable[[str], Mapping[str, Any]]
    label: Callable[[Any], str]

    def encode(self, text: str) -> bytes:
        """The body as it goes over the wire."""
        return json.dumps(self.body(text)).encode()

    def decode(self, answer: bytes) -> str:
        """The likeliest label in the body of an answer. Raises as `label`."""
        return str(self.label(json.loads(answer)))


def _likeliest(scores: list[Mapping[str, Any]]) -> str:
    return str(max(scores, key=lambda entry: float(entry["score"]))["label"])


NATIVE = Codec(
    path="/predict", body=lambda text: {"text": text}, label=lambda answer: str(answer["label"])
)
# A batchable API of BentoML takes and gives lists.
BENTO = Codec(
    path="/classify",
    body=lambda text: {"texts": [text]},
    label=lambda answer: str(answer[0]["label"]),
)
# Open Inference Protocol v2.
MLSERVER = Codec(
    path=f"/v2/models/{MODEL_NAME}/infer",
    body=lambda text: {
        "inputs": [{"name": "texts", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
    },
    label=lambda answer: str(answer["outputs"][0]["data"][0]),
)
INFINITY = Codec(
    path="/classify",
    body=lambda text: {"model": MODEL_NAME, "input": [text]},
    label=lambda answer: _likeliest(answer["data"][0]),
)
