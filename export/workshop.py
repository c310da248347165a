"""The folder in which candidates are made and measured; what is finished in it is used again.

exported.onnx, slim.onnx      the graph as exported, and slimmed
prepared.json                 how that went; there once both graphs are
exam.npz, calibration.npz     encoded texts
settings.json                 `Settings`, what every step must know
NAME/model.onnx               a candidate's graph
NAME/unfit.txt                instead of it: why none can be made
NAME/answers-0-256.npz        its answers to rows of the exam
NAME/timing-0.json            its times in one round
Every file appears whole, by rename.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.lanes import Lanes
from serving.session import Encoding

if TYPE_CHECKING:
    from export.recipes.material import Material


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every step must know. lengths: tokens to time. runtimes: name -> runtime and options."""

    pad_token_id: int
    heads: int
    hidden_size: int
    flip_budget: float
    lanes: Lanes
    lengths: tuple[int, ...]
    runtimes: Mapping[str, Mapping[str, Any]]


class Workshop:
    """Paths and their contents; it decides nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exported = folder / "exported.onnx"
        self.slim = folder / "slim.onnx"
        self.prepared = folder / "prepared.json"

    def graph(self, name: str) -> Path:
        """A candidate's graph; its folder is there."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name / "model.onnx"

    def unfit(self, name: str) -> Path:
        """Why its recipe makes no graph of this checkpoint, if it was tried and does not."""
        return self.graph(name).with_name("unfit.txt")

    def answers(self, name: str, start: int, stop: int) -> Path:
        """Its answers to the rows from *start* up to *stop*."""
        return self.folder / name / f"answers-{start}-{stop}.npz"

    def timing(self, name: str, round_: int) -> Path:
        """Its times in one round."""
        return self.folder / name / f"timing-{round_}.json"

    @cached_property
    def settings(self) -> Settings:
        """As written."""
        document = json.loads((self.folder / "settings.json").read_bytes())
        document["lanes"] = Lanes(**document["lanes"])
        document["lengths"] = tuple(document["lengths"])
        return Settings(**document)

    def write_settings(self, settings: Settings) -> None:
        """For the steps to come."""
        self.write_json(self.folder / "settings.json", asdict(settings))
        self.settings = settings

    def exam(self) -> list[Encoding]:
        """The exam's texts, in its order."""
        return _load(self.folder / "exam.npz")

    def write_texts(self, exam: Sequence[Encoding], calibration: Sequence[Encoding]) -> None:
        """The texts of all steps."""
        _save(self.folder / "exam.npz", exam)
        _save(self.folder / "calibration.npz", calibration)

    def material(self) -> Material:
        """What recipes are given."""
        from export.recipes.material import Material

        return Material(
            exported=self.exported,
            slim=self.slim,
            calibration=_load(self.folder / "calibration.npz"),
            pad_token_id=self.settings.pad_token_id,
            heads=self.settings.heads,
            hidden_size=self.settings.hidden_size,
            flip_budget=self.settings.flip_budget,
        )

    @classmethod
    def write_json(cls, path: Path, document: Any) -> None:
        """Whole or not at all."""
        cls.write_text(path, json.dumps(document))

    @staticmethod
    def write_text(path: Path, text: str) -> None:
        """Whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def _save(path: Path, texts: Sequence[Encoding]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            ids=np.array([token for text in texts for token in text.ids], dtype=np.int64),
            types=np.array([kind for text in texts for kind in text.type_ids], dtype=np.int64),
            lengths=np.array([len(text) for text in texts], dtype=np.int64),
        )
    part.replace(path)


def _load(path: Path) -> list[Encoding]:
    with np.load(path) as saved:
        ids, types, lengths = saved["ids"], saved["types"], saved["lengths"]
    ends = np.cumsum(lengths)
    return [
        Encoding(
            ids=tuple(ids[end - length : end].tolist()),
            type_ids=tuple(types[end - length : end].tolist()),
        )
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
