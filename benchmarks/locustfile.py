"""Locust users for a miniml endpoint.

On its own, with Locust's web page:  locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000
Headless, with a JSON record:        miniml bench load --url http://127.0.0.1:8000

MINIML_BODIES names a file of request bodies, one JSON document a line (default: one short text).
MINIML_SAMPLES names the file that receives [sent_s, latency_ms, ok] for every request at the end.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task

_DEFAULT_BODY = json.dumps({"text": "Friendly staff, but the soup was cold."})
_HEADERS = {"content-type": "application/json"}
_turn = count()
_samples: list[tuple[float, float, int]] = []
_bodies: list[str] = []
_started_s = 0.0


@events.test_start.add_listener
def _begin(**_: Any) -> None:
    """Read the bodies once, before the first request."""
    global _started_s  # noqa: PLW0603 - Locust's hooks are module functions
    path = os.environ.get("MINIML_BODIES")
    _bodies[:] = Path(path).read_text(encoding="utf-8").splitlines() if path else [_DEFAULT_BODY]
    _started_s = time.time()


@events.request.add_listener
def _keep(start_time: float, response_time: float, exception: Any, **_: Any) -> None:
    _samples.append((start_time - _started_s, response_time, int(exception is None)))


@events.quitting.add_listener
def _write(**_: Any) -> None:
    if path := os.environ.get("MINIML_SAMPLES"):
        Path(path).write_text(json.dumps(_samples), encoding="utf-8")


class PredictUser(FastHttpUser):
    """Closed loop: asks, waits for the answer, asks again with the next body."""

    wait_time = constant(0)

    @task
    def predict(self) -> None:
        """One `POST /predict`."""
        body = _bodies[next(_turn) % len(_bodies)]
        self.client.post("/predict", data=body, headers=_HEADERS)
