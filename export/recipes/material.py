"""What a recipe is given to work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.session import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The graph as exported, the same slimmed, and training texts to calibrate on.

    calibration: empty when the training rows cannot be found. heads, hidden_size: of one attention,
    0 where the architecture does not say. flip_budget: share of answers that may differ (0..1).
    """

    exported: Path
    slim: Path
    calibration: Sequence[Encoding]
    pad_token_id: int
    heads: int
    hidden_size: int
    flip_budget: float
