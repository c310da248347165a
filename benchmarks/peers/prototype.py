"""The prototype: a synchronous FastAPI endpoint around a transformers pipeline.

    uvicorn --factory benchmarks.peers.prototype:create_app

One process. FastAPI calls a `def` endpoint on a thread of its pool, so requests run side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from fastapi import FastAPI
from transformers import pipeline

from benchmarks.peers.contract import PeerAnswer, PeerQuestion, PeerSettings


def create_app() -> FastAPI:
    """The application, with its model loaded."""
    settings = PeerSettings.from_environment()
    torch.set_num_threads(settings.cores)
    make_pipeline: Any = pipeline  # its 40 overloads say less than its page
    classify = make_pipeline(
        "text-classification",
        model=str(settings.model),
        device=settings.device,
        dtype=settings.dtype,
        truncation=True,
        max_length=settings.max_length,
    )
    app = FastAPI()

    @app.post("/predict")
    def predict(question: PeerQuestion) -> PeerAnswer:
        (found,) = classify(question.text)
        return PeerAnswer(label=found["label"], score=found["score"])

    return app
