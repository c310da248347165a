"""What goes into a graph and what comes out: encodings, padded arrays, logits.

Knows neither texts nor what runs the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Feed = Mapping[str, npt.NDArray[np.int64]]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One text as the model sees it: T token ids and their segment (0, or 1 for the second text)."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


def padded(encodings: Sequence[Encoding], *, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Every input a text encoder may take, (B, T) int64 with T the longest text."""
    feed = blank(len(encodings), max(len(encoding) for encoding in encodings))
    write_padded(feed, encodings, pad_token_id=pad_token_id)
    return feed


def blank(batch: int, length: int) -> dict[str, npt.NDArray[np.int64]]:
    """Arrays (batch, length) for `write_padded`.

    int64: the ONNX export of every encoder fixes this type.
    """
    return {name: np.empty((batch, length), dtype=np.int64) for name in INPUTS}


def write_padded(feed: Feed, encodings: Sequence[Encoding], *, pad_token_id: int) -> None:
    """Overwrite *feed*, arrays (B, T) of `INPUTS`, with at most B texts of at most T tokens.

    Rows are right-padded. Rows beyond the texts attend to one padding token: the softmax of a row
    that attends to none is not a number.
    """
    ids, mask, type_ids = (feed[name] for name in INPUTS)
    ids.fill(pad_token_id)
    mask.fill(0)
    type_ids.fill(0)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)] = encoding.ids
        mask[row, : len(encoding)] = 1
        type_ids[row, : len(encoding)] = encoding.type_ids
    mask[len(encodings) :, 0] = 1


def failure(encodings: Sequence[Encoding], error: Exception) -> str:
    """The message of the `EngineFailed` that *error* becomes."""
    return f"the model failed on a batch of {len(encodings)}: {error}"
