"""How far a run is, on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import logging
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)
_LINE_EVERY_S = 30.0


class Showing:
    """Rows *done* of *total*, texts/s of this run, time left. A context: it ends with the bar."""

    def __init__(self, total: int, *, done: int) -> None:
        self._total, self._before = total, done
        self._of_piece: dict[int, int] = {}
        self._began_s = self._line_s = time.monotonic()
        console = Console(stderr=True)
        self._lines = not console.is_terminal
        self._progress = Progress(
            TextColumn("Classifying"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=self._lines,
            speed_estimate_period=120,
        )
        self._task = self._progress.add_task("", total=total, completed=done, rate="starting")

    def rows(self, piece: int, done: int) -> None:
        """So many rows of a piece are done; it may be fewer again, when its worker has died."""
        if not self._of_piece:  # workers are ready: what came before is no work
            self._began_s = self._line_s = time.monotonic()
        self._of_piece[piece] = done
        now_s, new = time.monotonic(), sum(self._of_piece.values())
        rate = new / max(now_s - self._began_s, 1e-9)
        shown = f"{rate:,.0f} texts/s" if new else "starting"
        self._progress.update(self._task, completed=self._before + new, rate=shown)
        if self._lines and now_s - self._line_s > _LINE_EVERY_S:
            self._line_s = now_s
            _log.info("%s of %s rows, %s", f"{self._before + new:,}", f"{self._total:,}", shown)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
