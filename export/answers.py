"""What a graph answers on the exam, run by the very engine that will serve it.

It knows neither truths nor gates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.engine import Encoding, Logits, Session
from serving.lanes import usable_cores

_COMPANY = 8  # texts in a mixed batch
_ASKED_AGAIN = 48  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One graph on N rows, L labels.

    alone, mixed: logits (N, L), each row run by itself, and padded beside seven drawn at random.
    deterministic: whether rows asked again gave the same bits.
    """

    alone: Logits
    mixed: Logits
    deterministic: bool
    model_bytes: int


def answer_exam(
    graph: Path,
    encodings: Sequence[Encoding],
    *,
    pad_token_id: int,
    advance: Callable[[int], None],
) -> Answers:
    """Run all *encodings* alone and in company; *advance* is told of rows done, 2 N in all.

    Raises `PackageError` or `EngineFailed` when the graph cannot be loaded or run.
    """
    session = Session(graph, threads=1)
    company = draw_company(len(encodings))

    def run(batch: Sequence[Encoding]) -> Logits:
        logits = session.run(batch, pad_token_id=pad_token_id)
        advance(len(batch))
        return logits

    with ThreadPoolExecutor(usable_cores()) as lanes:  # one thread each, as serving has them
        alone = _gather(lanes.map(run, ([encoding] for encoding in encodings)))
        drawn = _gather(lanes.map(run, ([encodings[row] for row in group] for group in company)))
    again = _gather(session.run([e], pad_token_id=pad_token_id) for e in encodings[:_ASKED_AGAIN])
    mixed = np.empty_like(alone)
    mixed[[row for group in company for row in group]] = drawn
    return Answers(
        alone=alone,
        mixed=mixed,
        deterministic=np.array_equal(again, alone[:_ASKED_AGAIN]),
        model_bytes=graph.stat().st_size,
    )


def draw_company(rows: int) -> list[list[int]]:
    """Row numbers in random groups of eight; the same draw for every graph."""
    order = list(range(rows))
    random.Random(0).shuffle(order)  # noqa: S311 - nothing is hidden
    return [order[start : start + _COMPANY] for start in range(0, rows, _COMPANY)]


def _gather(parts: Iterable[Logits]) -> Logits:
    return np.concatenate(list(parts))
