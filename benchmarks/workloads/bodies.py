"""From texts to bodies of `POST /predict`."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.workloads.files import Row

MOST_TEXTS_PER_CALL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request body, as it goes over the wire, and how many texts it holds.

    fresh: to be computed, though the server may know the answer. A load goes round its texts, which
    real callers do not: what it was told a round ago must not count.
    """

    content: bytes
    texts: int
    fresh: bool = True


def call_bodies(texts: Sequence[str], *, texts_per_call: int = 1, **fields: Any) -> list[Body]:
    """Bodies in the order of *texts*, with further *fields* in each.

    texts_per_call 1 sends `text`; more sends `texts`, the last call holding what is left.
    """
    if texts_per_call == 1:
        return [Body(content=_json({"text": text, **fields}), texts=1) for text in texts]
    starts = range(0, len(texts), texts_per_call)
    chunks = [list(texts[start : start + texts_per_call]) for start in starts]
    return [Body(content=_json({"texts": c, **fields}), texts=len(c)) for c in chunks]


def row_bodies(
    rows: Sequence[Row], *, texts_per_call: int, seed: int, fresh: bool = True
) -> list[Body]:
    """One pass over *rows*, which may hold pairs, in seeded order; calls as in `call_bodies`."""
    order = list(rows)
    random.Random(seed).shuffle(order)  # noqa: S311 - a workload, not a secret
    if texts_per_call == 1:
        return [Body(content=_json(row), texts=1, fresh=fresh) for row in order]
    starts = range(0, len(order), texts_per_call)
    return [_call(order[start : start + texts_per_call], fresh=fresh) for start in starts]


def _call(rows: Sequence[Row], *, fresh: bool) -> Body:
    body: dict[str, list[str]] = {"texts": [row["text"] for row in rows]}
    if any("text_pair" in row for row in rows):
        body["text_pairs"] = [row.get("text_pair", "") for row in rows]
    return Body(content=_json(body), texts=len(rows), fresh=fresh)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(document)).encode()
