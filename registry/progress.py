"""A bar for bytes on their way, on stderr: where somebody looks, and where it may take a while."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_WORTH_BYTES = 4_000_000

Moved = Callable[[int], None]  # takes how many bytes have moved since the last call


@contextmanager
def moving(told: str, total_bytes: int) -> Iterator[Moved]:
    """What to call as bytes move; *told* says what is moved."""
    console = Console(stderr=True)
    if not console.is_terminal or total_bytes < _WORTH_BYTES:
        yield _unseen
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(told, total=total_bytes)
        yield lambda count: progress.advance(task, count)


class CountedFile(io.FileIO):
    """A file that tells how far it was read; who sends it again reads it again, and counts back."""

    def __init__(self, path: Path, moved: Moved) -> None:
        super().__init__(path)
        self._moved = moved

    def read(self, size: int | None = -1, /) -> bytes:
        """As `io.FileIO`."""
        data: bytes = super().read(size)
        self._moved(len(data))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As `io.FileIO`."""
        before = self.tell()
        after = super().seek(offset, whence)
        self._moved(after - before)
        return after


def _unseen(_count: int) -> None:
    pass
