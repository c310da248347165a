"""The nouns: a way to run the checkpoint, cores shared out, and what a backend is told to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving.session import Encoding, Logits

Run = Callable[[Sequence[Encoding]], Logits]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """backend: a file of this room, with a dash. precision: of the products, and their peak's name.

    note: what the graph is, for people. model: a checkpoint's folder or a graph; the file need not
    be there before `missing` has been asked. package: the folder it came from, if from one.
    """

    backend: str
    precision: str
    note: str
    model: Path
    options: Mapping[str, str] = field(default_factory=dict)
    package: Path | None = None

    @property
    def name(self) -> str:
        """Names it in a run."""
        return f"{self.backend} {self.note}"

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on one."""
        return self.backend.endswith("-cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Cores shared out: batches at once, each on *threads* threads."""

    lanes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.lanes} x {self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJob:
    """What `load` is told. max_length: tokens of the longest text."""

    precision: str
    model: str
    lanes: int
    threads: int
    pad_token_id: int
    max_length: int
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, variant: Variant, layout: Layout, *, pad_token_id: int, max_length: int) -> LoadJob:
        """*variant* on *layout*."""
        return cls(
            precision=variant.precision,
            model=str(variant.model),
            lanes=layout.lanes,
            threads=layout.threads,
            pad_token_id=pad_token_id,
            max_length=max_length,
            options=variant.options,
        )

    def document(self) -> dict[str, Any]:
        """As JSON; `LoadJob(**document)` is the same job."""
        return asdict(self)


def layouts(cores: int, *, on_gpu: bool) -> tuple[Layout, ...]:
    """Both ends: a lane a core, and all cores for one batch. On a GPU one batch at a time."""
    together = Layout(lanes=1, threads=cores)
    return (together,) if on_gpu or cores == 1 else (Layout(lanes=cores, threads=1), together)
