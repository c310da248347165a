"""LitServe as its pages show it: a `LitAPI` whose `predict` takes a batch.

    python -m benchmarks.peers.litserve_batch PORT

One inference worker of ONNX Runtime int8 on all cores, a process apart from the HTTP server.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import litserve

from benchmarks.peers.classifier import OnnxClassifier
from benchmarks.peers.contract import PeerAnswer, PeerSettings


class LitserveBatched(litserve.LitAPI):  # type: ignore[misc]  # not installed here
    """Texts that come within 10 ms of each other are one batch, 32 at most."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model; called once, in the worker."""
        settings = PeerSettings.from_environment()
        self._classify = OnnxClassifier(
            settings.model, max_length=settings.max_length, threads=settings.cores
        )

    def decode_request(self, request: Mapping[str, str]) -> str:
        """The text of a body."""
        return request["text"]

    def predict(self, texts: Sequence[str]) -> list[PeerAnswer]:
        """One answer a text, in order."""
        return self._classify(texts)

    def encode_response(self, answer: PeerAnswer) -> dict[str, object]:
        """What goes over the wire."""
        return answer.model_dump()


def main(port: int) -> None:
    """Serve on the loopback until a signal."""
    server = litserve.LitServer(
        LitserveBatched(max_batch_size=32, batch_timeout=0.01),
        accelerator="cpu",
        workers_per_device=1,
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
