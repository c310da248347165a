"""FastAPI and ONNX Runtime int8, without batching: a worker a core, one thread each.

    uvicorn --factory benchmarks.peers.plain_fastapi:create_app --workers 2

The endpoint is `async def` and computes at once: on FastAPI's thread pool a worker would run many
texts side by side on its one core, and all of them would be late.
"""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.peers.classifier import OnnxClassifier
from benchmarks.peers.contract import PeerAnswer, PeerQuestion, PeerSettings


def create_app() -> FastAPI:
    """The application of one worker, with its model loaded."""
    settings = PeerSettings.from_environment()
    classify = OnnxClassifier(settings.model, max_length=settings.max_length, threads=1)
    app = FastAPI()

    @app.post("/predict")
    async def predict(question: PeerQuestion) -> PeerAnswer:
        (answer,) = classify([question.text])
        return answer

    return app
