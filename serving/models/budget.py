"""Which models stay loaded within a memory budget: those that were used last. Pure bookkeeping.

Who is used just now stays, whatever that takes, and so does the last one: a model that is larger than
the budget alone is served alone.
"""

from __future__ import annotations

from collections import Counter, OrderedDict


class Budget:
    """Of *most_bytes* for all that are loaded, by their names."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes: OrderedDict[str, int] = OrderedDict()  # the one unused for the longest first
        self._users: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        """Somebody uses it from now on, or waits for it to be loaded."""
        self._users[name] += 1
        self._touch(name)

    def leave(self, name: str) -> None:
        """And does not any more."""
        self._users[name] -= 1
        self._touch(name)

    def add(self, name: str, size_bytes: int) -> None:
        """It is loaded, or another package in its place, and takes so much."""
        self._bytes[name] = size_bytes
        self._touch(name)

    def remove(self, name: str) -> None:
        """It is not loaded any more."""
        self._bytes.pop(name, None)

    def surplus(self, more_bytes: int = 0) -> list[str]:
        """Whom to unload, in this order, so that *more_bytes* would be within the budget, too."""
        left, going = dict(self._bytes), []
        for name in self._bytes:
            # The last goes for nobody but who comes.
            is_needed = bool(self._users[name]) or (len(left) == 1 and not more_bytes)
            if sum(left.values()) + more_bytes <= self._most_bytes:
                break
            if not is_needed:
                del left[name]
                going.append(name)
        return going

    @property
    def loaded_bytes(self) -> int:
        """Of all that are loaded."""
        return sum(self._bytes.values())

    def _touch(self, name: str) -> None:
        if name in self._bytes:
            self._bytes.move_to_end(name)
