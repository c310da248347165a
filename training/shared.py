"""One worker's part of a fit that several processes share: its batches, and what all agree on.

The processes are in one torch process group already; who started them is not known here. A worker
alone takes all of every batch and asks nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.utils.data import DataLoader

from training.batches import length_grouped, share_of_batch
from training.encode import EncodedRows

ROW_WEIGHTS = "row_weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Worker *rank*, counted from 0, of *count*."""

    rank: int
    count: int

    def as_first(self, values: Sequence[float]) -> list[float]:
        """*values* as the first worker has them, so that all decide the same."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=_device())
        distributed.broadcast(told, src=0)
        return [float(value) for value in told.tolist()]

    def agreed(self, wish: bool) -> bool:
        """What the first worker wishes: clocks differ, and a step apart is a deadlock."""
        return bool(self.as_first([float(wish)])[0])

    def summed(self, part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The sum of all workers' arrays, of one shape."""
        if self.count == 1:
            return part
        total = torch.from_numpy(part).to(_device())
        distributed.all_reduce(total)
        return np.asarray(total.cpu().numpy())


ALONE = Share(rank=0, count=1)


def share_loader(
    rows: EncodedRows,
    collate: Callable[[list[dict[str, Any]]], Any],
    *,
    batch_size: int,
    seed: int,
    share: Share,
) -> DataLoader[dict[str, Any]]:
    """Batches of this worker, as many as one worker alone would take, of its part of each.

    batch_size: of all workers together. A batch carries `ROW_WEIGHTS` (B,) float32 beside what
    *collate* makes.
    """
    sampler = _ShareSampler(rows, batch_size=batch_size, seed=seed, share=share)
    return _EpochLoader(_WeightedRows(rows), batch_sampler=sampler, collate_fn=collate)


class _WeightedRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows by number and weight."""

    def __init__(self, rows: EncodedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: tuple[int, float]) -> dict[str, Any]:
        number, weight = row
        return {**self._rows[number], ROW_WEIGHTS: weight}


class _ShareSampler(torch.utils.data.Sampler[list[tuple[int, float]]]):
    """This worker's numbers and weights, batch by batch; a function of seed and epoch."""

    def __init__(self, rows: EncodedRows, *, batch_size: int, seed: int, share: Share) -> None:
        self._lengths = rows.lengths
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        size = self._batch_size
        order = length_grouped(self._lengths, batch_size=size, seed=self._seed, epoch=self.epoch)
        for start in range(0, len(order), size):
            rows, weights = share_of_batch(
                order[start : start + size], rank=self._share.rank, count=self._share.count
            )
            yield list(zip(rows.tolist(), weights.tolist(), strict=True))


class _EpochLoader(DataLoader[dict[str, Any]]):
    """A loader whose sampler hears of epochs; accelerate would shard what is sharded already."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of each epoch."""
        sampler: Any = self.batch_sampler
        sampler.epoch = epoch


def _device() -> str:
    """Where tensors must lie that the process group sends."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
