"""Unfinished runs: which resume point is whole, who may work on it, and a full disk said plainly.

Trainer writes a checkpoint file by file and its state last, so a kill leaves a torn one behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.base_model import WEIGHTS
from training.errors import FitFailed

STATE = "trainer_state.json"
_PICKLES = ("optimizer.pt", "scheduler.pt")
_GENERATORS = "rng_state*.pth"  # one, or one a worker; a run may go on with more or fewer workers
# How torch (a write cut short) and safetensors (written in Rust) say that the disk is full.
_FULL = ("os error 28", "os error 122", "inline_container", "PytorchStreamWriter failed")


def last_complete(work: Path) -> Path | None:
    """The newest whole checkpoint in *work*; torn ones are removed, lest Trainer counts them."""
    found = None
    for folder in sorted(work.glob("checkpoint-*"), key=step_of):
        if _is_whole(folder):
            found = folder
        else:
            shutil.rmtree(folder)
    return found


def step_of(checkpoint: Path) -> int:
    """The step that Trainer put into the folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def forget(work: Path) -> None:
    """Remove every checkpoint in *work*."""
    for folder in work.glob("checkpoint-*"):
        shutil.rmtree(folder)


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """One process for a run at a time; the kernel frees the lock of one that dies.

    Raises `FitFailed` at once when another has it.
    """
    work.mkdir(parents=True, exist_ok=True)  # a twin that just ended took the folder with it
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FitFailed(
                "Another process is training with the same dataset and options; wait for it, or "
                "change one of them."
            ) from error
        yield


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A full disk as the OSError it is; torch and safetensors raise errors of their own for it."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if not any(sign in str(error) for sign in _FULL):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _is_whole(folder: Path) -> bool:
    """Whether the state, written last, can be read, and the rest is there."""
    try:
        json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError):
        return False
    generators = list(folder.glob(_GENERATORS))
    pickles = [*(folder / name for name in _PICKLES), *generators]
    return (
        bool(generators) and all(map(zipfile.is_zipfile, pickles)) and (folder / WEIGHTS).is_file()
    )
