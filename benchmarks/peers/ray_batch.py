"""Ray Serve as its pages show it: FastAPI ingress, `@serve.batch`, Ray's own Python proxy.

    python -m benchmarks.peers.ray_batch PORT

One replica of ONNX Runtime int8 on all cores. Serves until SIGINT or SIGTERM. Starts a Ray of its
own on this machine, never the cluster that RAY_ADDRESS names. No `from __future__ import
annotations` here: FastAPI reads the annotations of a class that Ray has pickled by value.
"""

import logging
import signal
import sys
import threading
from typing import Any

import ray as untyped_ray
from fastapi import FastAPI
from ray import serve as untyped_serve

from benchmarks.peers.classifier import OnnxClassifier
from benchmarks.peers.contract import PeerAnswer, PeerQuestion, PeerSettings

ray: Any = untyped_ray
serve: Any = untyped_serve
app = FastAPI()
_OBJECT_STORE_BYTES = 80 * 2**20  # answers never pass through it; Ray's least is 75 MiB


# Ray's default of 5 ongoing requests would never fill a batch; it warns, and its page says to
# raise it.
@serve.deployment(max_ongoing_requests=100)
@serve.ingress(app)
class Batched:
    """One replica; texts that come within 10 ms of each other are one batch, 32 at most."""

    def __init__(self, settings: PeerSettings) -> None:
        self._classify = OnnxClassifier(
            settings.model, max_length=settings.max_length, threads=settings.cores
        )

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
    async def classify(self, texts: list[str]) -> list[PeerAnswer]:
        """One answer a text, in order."""
        return self._classify(texts)

    @app.post("/predict")
    async def predict(self, question: PeerQuestion) -> PeerAnswer:
        """One text."""
        answer: PeerAnswer = await self.classify(question.text)
        return answer


def main(port: int) -> None:
    """Serve on the loopback until a signal, then stop everything this started."""
    settings = PeerSettings.from_environment()
    stop = threading.Event()
    ray.init(
        address="local",
        num_cpus=settings.cores,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which sets its own
            signal.signal(number, lambda *_: stop.set())
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        deployment: Any = Batched
        sized = deployment.options(ray_actor_options={"num_cpus": settings.cores})
        serve.run(sized.bind(settings))
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
