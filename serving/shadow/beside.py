"""The place beside a champion where a candidate may stand: none does, one does, or another does now."""

from __future__ import annotations

import threading
from functools import partial

from serving.core import Answered, Core
from serving.errors import ServingError
from serving.locate import locate_apart
from serving.request import Request
from serving.rollout.wanted import PinnedShare
from serving.shadow.observer import Shadow
from serving.shadow.report import ShadowState


class Beside:
    """An observer that tells the candidate, where there is one. On the event loop alone.

    allow_code: as in `ServeSettings`.
    """

    def __init__(self, core: Core, *, allow_code: str | None = None) -> None:
        self._core = core
        self._allow_code = allow_code
        self._shadow: Shadow | None = None

    def arrange(self, candidate: PinnedShare | None) -> None:
        """Have *candidate* compared from now on, or nobody; what another had found is forgotten.

        Returns at once: a candidate starts, and ends, aside. One that stands there already goes on, with
        its counts, though its share be another.
        """
        if self._shadow and candidate and self._shadow.candidate.digest == candidate.digest:
            self._shadow.candidate = candidate
            return
        if before := self._shadow:
            threading.Thread(target=before.close, name="shadow-end").start()
        self._shadow = None
        if candidate:
            self._shadow = Shadow(
                *(self._core, candidate),
                partial(locate_apart, candidate.package, candidate.digest),
                allow_code=self._allow_code,
            )

    def state(self) -> ShadowState | None:
        """What was found so far; None where nobody stands there."""
        return self._shadow.state() if self._shadow else None

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """It got its answers."""
        if self._shadow:
            self._shadow.answered(request, answered, took_s)

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:
        """There is no answer to compare."""

    def left(self, request: Request, took_s: float) -> None:
        """There is none either."""

    def close(self) -> None:
        """Nobody stands there any more; waits until the process is gone."""
        if shadow := self._shadow:
            shadow.close()
