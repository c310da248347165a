"""Who is being answered just now, and whether anybody else may ask."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from serving.errors import NotReady


class InFlight:
    """`with in_flight:` around each request. On the event loop alone."""

    def __init__(self) -> None:
        self.draining = False
        self._count = 0
        self._nobody = asyncio.Event()

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._nobody.set()

    def refuse_when_draining(self) -> None:
        """Raise `NotReady` for who comes while those who came before are answered."""
        if self.draining:
            raise NotReady("This replica is shutting down.", hint="Ask again.")

    async def finish(self, within_s: float) -> int:
        """Let nobody in, and wait until all have left, so long at most; how many have not."""
        self.draining = True
        self._nobody.clear()
        if self._count:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nobody.wait(), within_s)
        return self._count
