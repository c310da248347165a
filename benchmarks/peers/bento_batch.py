"""BentoML as its pages show it: a service with a batchable API, adaptive batching on.

    bentoml serve benchmarks.peers.bento_batch:BentoBatched --port PORT

One worker of ONNX Runtime int8 on all cores. A batchable API takes and gives lists, so a text is a
list of one. No `from __future__ import annotations` here: BentoML reads the annotations.
"""

import bentoml

from benchmarks.peers.classifier import OnnxClassifier
from benchmarks.peers.contract import PeerAnswer, PeerSettings


@bentoml.service(workers=1, traffic={"timeout": 60})
class BentoBatched:
    """Batches of 32 texts at most; how long to wait for more is what BentoML learns."""

    def __init__(self) -> None:
        settings = PeerSettings.from_environment()
        self._classify = OnnxClassifier(
            settings.model, max_length=settings.max_length, threads=settings.cores
        )

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def classify(self, texts: list[str]) -> list[PeerAnswer]:
        """One answer a text, in order."""
        return self._classify(texts)
