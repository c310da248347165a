"""MLServer as its pages show it: a custom runtime, with adaptive batching.

    mlserver start FOLDER     (all settings by environment, see `apart`)

One inference worker of ONNX Runtime int8 on all cores, a process apart from the HTTP server, which
makes the batches. No `from __future__ import annotations` here: MLServer decodes the arguments of
`predict` by its annotations, and knows `List` but not `list`.
"""
# ruff: noqa: UP006, UP035 - see above

from typing import List, Tuple

import numpy as np
from mlserver import MLModel
from mlserver.codecs import decode_args

from benchmarks.peers.classifier import OnnxClassifier
from benchmarks.peers.contract import PeerSettings


class MlserverBatched(MLModel):  # type: ignore[misc]  # not installed here
    """Batches of 32 texts at most, of those that come within 10 ms."""

    async def load(self) -> bool:
        """Load the model; called in the worker."""
        settings = PeerSettings.from_environment()
        self._classify = OnnxClassifier(
            settings.model, max_length=settings.max_length, threads=settings.cores
        )
        return True

    @decode_args  # type: ignore[untyped-decorator]
    async def predict(self, texts: List[str]) -> Tuple[List[str], np.ndarray]:
        """One label and its probability a text, in order."""
        answers = self._classify(texts)
        scores = np.array([[answer.score] for answer in answers], dtype=np.float32)
        return [answer.label for answer in answers], scores
