"""How one package has done on live requests: answered, failed, and how long the last ones took."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from serving.request import OTHER
from serving.rollout.probation import Conduct, Past

if TYPE_CHECKING:
    from serving.core import Answered
    from serving.errors import ServingError
    from serving.request import Request

_KEPT = 2000  # 20 of them are beyond the p99: enough to know it to about a fifth
_SERVERS_FAULT = 500
_NOT_TIMED = "lines"  # bulk: each waits its turn, however long that is


class Witness:
    """An observer of the desk; a few hundred nanoseconds a request."""

    def __init__(self) -> None:
        self._answered = self._failed = self._timed = self._slow = 0
        self._limit_s = float("inf")
        self._took_s: deque[float] = deque(maxlen=_KEPT)

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """It got its answers."""
        self._answered += 1
        if request.door != _NOT_TIMED:
            self._timed += 1
            self._slow += took_s > self._limit_s
            self._took_s.append(took_s)

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """It got an error, which may be the package's fault or not; at no door, it is not."""
        self._failed += error.status >= _SERVERS_FAULT and request.door != OTHER

    def left(self, request: Request, took_s: float) -> None:
        """Nobody knows what it would have got."""

    def limit(self, limit_ms: float) -> None:
        """From now on count those that take longer."""
        self._timed = self._slow = 0
        self._limit_s = limit_ms / 1e3

    def past(self) -> Past:
        """For who comes after."""
        return Past(answered=self._answered, failed=self._failed, p99_ms=self.p99_ms)

    def conduct(self) -> Conduct:
        """As it is now."""
        return Conduct(
            answered=self._answered, failed=self._failed, timed=self._timed, slow=self._slow
        )

    @property
    def p99_ms(self) -> float | None:
        """Of the last 2,000 answers; None where fewer than 100 came."""
        took_s = sorted(self._took_s)
        beyond = len(took_s) // 100
        return took_s[-beyond] * 1e3 if beyond else None
