"""What a graph answers on the exam, run by the very session that will serve it.

It knows neither truths nor gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serving.session import Encoding, Logits, Session

COMPANY = 8  # texts in a mixed batch
_ASKED_AGAIN = 16  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One graph on the first N rows of the exam, L labels.

    alone: logits (N, L), each row run by itself. mixed: logits (M, L) of the first M <= N rows,
    padded beside seven others; the exam is in random order, so its neighbours are random company.
    deterministic: whether rows asked again gave the same bits.
    """

    alone: Logits
    mixed: Logits
    deterministic: bool

    def then(self, more: Answers) -> Answers:
        """These answers and those on the rows after them."""
        return Answers(
            alone=np.concatenate([self.alone, more.alone]),
            mixed=np.concatenate([self.mixed, more.mixed]),
            deterministic=self.deterministic and more.deterministic,
        )

    def save(self, path: Path) -> None:
        """Write them to *path*, wholly or not at all."""
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(
                file, alone=self.alone, mixed=self.mixed, deterministic=np.array(self.deterministic)
            )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Answers:
        """As saved."""
        with np.load(path) as saved:
            return cls(
                alone=saved["alone"],
                mixed=saved["mixed"],
                deterministic=bool(saved["deterministic"]),
            )


def answer_exam(  # noqa: PLR0913 - each named at the call
    session: Session,
    encodings: Sequence[Encoding],
    *,
    pad_token_id: int,
    streams: int,
    mixed_rows: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Run *encodings* alone, and the first *mixed_rows* of them (all by default) in company.

    *advance* is told of rows done. Raises `EngineFailed` when the graph fails.
    """

    def run(batch: Sequence[Encoding]) -> Logits:
        logits = session.run(batch, pad_token_id=pad_token_id)
        advance(len(batch))
        return logits

    company = encodings[:mixed_rows]
    groups = [company[start : start + COMPANY] for start in range(0, len(company), COMPANY)]
    with ThreadPoolExecutor(streams) as lanes:  # as serving has them
        alone = _gather(lanes.map(run, ([encoding] for encoding in encodings)))
        mixed = _gather(lanes.map(run, groups)) if groups else alone[:0]
        once_more = ([encoding] for encoding in encodings[:_ASKED_AGAIN])
        again = _gather(lanes.map(partial(session.run, pad_token_id=pad_token_id), once_more))
    return Answers(
        alone=alone, mixed=mixed, deterministic=np.array_equal(again, alone[:_ASKED_AGAIN])
    )


def _gather(parts: Iterable[Logits]) -> Logits:
    return np.concatenate(list(parts))
