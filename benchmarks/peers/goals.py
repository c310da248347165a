"""How many times a peer's speed ours is to be, as the project promised itself.

workload -> peer -> the ratio, of texts/s in a closed loop and of the highest rate within the goal.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.line_up import PLAIN_FASTAPI, PROTOTYPE, RAY_BATCH

TEXTS_GOALS: Mapping[str, Mapping[str, float]] = {
    "queries": {PROTOTYPE: 12.0, PLAIN_FASTAPI: 1.25, RAY_BATCH: 5.0},
    "reviews": {PROTOTYPE: 3.5, PLAIN_FASTAPI: 0.97, RAY_BATCH: 2.4},
}
RATE_GOALS: Mapping[str, Mapping[str, float]] = {
    "queries": {PROTOTYPE: 12.0, PLAIN_FASTAPI: 1.2},
    "reviews": {PROTOTYPE: 3.5, PLAIN_FASTAPI: 1.0},
}
