"""Where revisions of what is wanted are written down, once each, and whose turn it is to take one.

A revision is a key that can be written once, so of two changes at the same time one is the next
revision and the other is refused; nothing is ever mixed. Replicas take a new revision in turns:
each claims a number, and waits for the one that is half of it. So the first is alone, then two take
it, then four: a package that cannot be served stops at the first replica.
"""

from __future__ import annotations

import itertools
import threading
from typing import Protocol

from serving.rollout.wanted import Wanted, read_wanted, write_wanted

_KEPT = 20  # revisions, for who wants to see what was


class Store(Protocol):
    """Keys and values that all replicas share and that outlast them."""

    def get(self, key: str) -> bytes | None:
        """What stands there."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Whatever stands there."""
        ...

    def add(self, key: str, value: bytes) -> bool:
        """Whether nothing stood there; else it is left as it is."""
        ...

    def remove(self, prefix: str) -> None:
        """All keys that begin so."""
        ...


class Memory:
    """A store of one process: there is one replica, or a test."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._alone = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """What stands there."""
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Whatever stands there."""
        self._values[key] = value

    def add(self, key: str, value: bytes) -> bool:
        """Whether nothing stood there."""
        with self._alone:
            is_new = key not in self._values
            self._values.setdefault(key, value)
        return is_new

    def remove(self, prefix: str) -> None:
        """All keys that begin so."""
        for key in [key for key in self._values if key.startswith(prefix)]:
            self._values.pop(key, None)


class Ledger:
    """Of one deployment, named *name*; its calls block for as long as the store takes."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._prefix = f"miniml:rollout:{name}:"

    def latest(self) -> Wanted | None:
        """The newest revision; None before the first change."""
        # A hint: who wrote the newest revision may have died before it wrote this.
        hint = int(self._store.get(self._key("latest")) or 0)
        found = self._read(hint) if hint else None
        while newer := self._read(hint + 1):
            hint, found = hint + 1, newer
        return found

    def proven(self) -> Wanted | None:
        """The newest revision that a replica serves already, or that takes one back."""
        found = self.latest()
        while found and not (found.undone or self.is_over(found.revision, 0)):
            found = self._read(found.revision - 1)
        return found

    def write(self, wanted: Wanted) -> bool:
        """Whether it became the next revision; False where another did."""
        revision = wanted.revision
        if not self._store.add(self._key("revision", revision), write_wanted(wanted)):
            return False
        self._store.put(self._key("latest"), b"%d" % revision)
        if (old := revision - _KEPT) > 0:
            self._store.remove(self._key("revision", old))
            self._store.remove(self._key("turn", old))
            self._store.remove(self._key("over", old))
        return True

    def claim(self, revision: int, replica: str) -> int:
        """The replica's turn to take the revision, from 0; nobody else has it."""
        for turn in itertools.count():
            if self._store.add(self._key("turn", revision, turn), replica.encode()):
                return turn
        raise AssertionError("count ends; this is a bug")

    def end(self, revision: int, turn: int) -> None:
        """The replica of this turn serves the revision."""
        self._store.put(self._key("over", revision, turn), b"1")

    def is_over(self, revision: int, turn: int) -> bool:
        """Whether it does."""
        return self._store.get(self._key("over", revision, turn)) is not None

    def _read(self, revision: int) -> Wanted | None:
        found = self._store.get(self._key("revision", revision))
        return None if found is None else read_wanted(found)

    def _key(self, *parts: str | int) -> str:
        # A colon at the end: 1 must not begin as 10 does.
        return self._prefix + "".join(f"{part}:" for part in parts)


def before(turn: int) -> int | None:
    """The turn that must be over before this one begins; None for the first."""
    return (turn - 1) // 2 if turn else None
