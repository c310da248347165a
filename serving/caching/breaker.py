"""When to leave a helper alone that fails: pure, the clock is a parameter."""

from __future__ import annotations

from dataclasses import dataclass

_FAILURES = 3
_FIRST_S, _LONGEST_S = 1.0, 30.0


@dataclass(slots=True)
class Breaker:
    """Closed: ask. Open: do not, until a time; then one may try, and its outcome decides.

    Opens after three failures in a row, for a second, and twice as long each time a try fails.
    """

    failures: int = 0
    _until_s: float = 0.0
    _pause_s: float = 0.0
    _trying: bool = False

    @property
    def open(self) -> bool:
        """Whether the helper is left alone, but for a try now and then."""
        return self.failures >= _FAILURES

    def allows(self, now_s: float) -> bool:
        """Whether to ask now; who is allowed must tell the outcome."""
        if not self.open:
            return True
        if self._trying or now_s < self._until_s:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """It answered: closed again."""
        self.failures, self._pause_s, self._trying = 0, 0.0, False

    def failed(self, now_s: float) -> None:
        """It did not."""
        self.failures += 1
        self._trying = False
        if self.open:
            self._pause_s = min(2 * self._pause_s or _FIRST_S, _LONGEST_S)
            self._until_s = now_s + self._pause_s
