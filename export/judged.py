"""What a search found: every candidate's verdict and speed, and which one is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.answers import Answers
from export.candidates import FP32, Candidate
from export.gates import Verdict
from export.speed import Speed

# Of the served variant, also on the first level of gates.json: what people ask of a package.
_HEADLINES = (
    "label_flip_rate",
    "flip_interval",
    "batch_flip_rate",
    "batch_bit_equal",
    "deterministic",
    "max_probability_change",
    "mean_probability_change",
    "texts_per_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """verdicts, speeds: by name, of all that could be made. not_tried: name -> why.

    served: the chosen candidate, its graph and its answers to the exam. facts: what was asked of
    the search, as `gates.json` has it. sensitivity: layer -> share of answers that flip when it
    alone is int8; empty unless it was looked for.
    """

    verdicts: Mapping[str, Verdict]
    speeds: Mapping[str, Speed]
    not_tried: Mapping[str, str]
    served: Candidate
    graph: Path
    answers: Answers
    fp32_answers: Answers
    facts: Mapping[str, Any]
    sensitivity: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the served candidate."""
        return self.verdicts[self.served.name]

    @property
    def fp32(self) -> Verdict:
        """Of the graph as exported."""
        return self.verdicts[FP32]

    def document(self) -> dict[str, Any]:
        """`gates.json`."""
        served = self._entry(self.served.name)
        return {
            **self.facts,
            "fp32": self._entry(FP32),
            "served": served,
            **{name: served[name] for name in _HEADLINES},
            "candidates": [self._entry(name) for name in self.verdicts],
            "not_tried": [{"name": n, "reason": why} for n, why in self.not_tried.items()],
            "notes": list(self.notes),
        }

    def _entry(self, name: str) -> dict[str, Any]:
        speed = self.speeds.get(name)
        return {
            **self.verdicts[name].document(),
            "texts_per_s": None if speed is None else speed.texts_per_s,
            "speed": None if speed is None else speed.document(),
        }
