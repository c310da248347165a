"""What a recipe is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.session import Encoding


def _in_silence(_: int) -> None:
    """Nobody waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The graph as exported, the same slimmed, and training texts to calibrate on.

    calibration: empty when the training rows cannot be found. heads, hidden_size: of one attention,
    0 where the architecture does not say. flip_budget: share of answers that may differ (0..1).
    advance: told, in whatever unit suits a recipe, of work that takes its time.
    """

    exported: Path
    slim: Path
    calibration: Sequence[Encoding]
    pad_token_id: int
    heads: int
    hidden_size: int
    flip_budget: float
    advance: Callable[[int], object] = _in_silence
