"""The packages that a replica has loaded, and which of them answers a request.

Each is a whole endpoint with a core of its own. One is picked at a request's beginning and keeps it to
its end, so that an answer and the digest beside it are of the same package. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.core import Core
from serving.memory import give_back_memory
from serving.protocols.asgi import Endpoint, Message, Send
from serving.protocols.leaving import Receive
from serving.wanted import Pinned, Wanted, WantedModel
from serving.witness import Witness

if TYPE_CHECKING:
    from serving.protocols.rpc import Rpc

_log = logging.getLogger(__name__)
# Of those who are answered by a package that another has replaced: a long stream of lines, as a rule.
_FINISH_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A package that is ready to answer. witness: told of all that it does. since_s: of `time.time`."""

    source: Pinned
    core: Core
    endpoint: Endpoint
    witness: Witness
    since_s: float = field(default_factory=time.time)

    async def close(self, within_s: float) -> None:
        """Answer who is here, so long at most, and give the memory back."""
        left = await self.endpoint.in_flight.finish(within_s)
        if left:
            _log.warning("%d requests took longer than %g s and are given up", left, within_s)
        await self.core.close()
        await self.endpoint.close()


Load = Callable[[Pinned], Loaded]


class Shelf:
    """Takes requests as `Endpoint` does, and hands them on. On the event loop alone, but for *load*.

    load: blocks for seconds, and raises when a package cannot be served here; called on a thread.
    """

    def __init__(self, model: WantedModel, load: Load) -> None:
        self._load = load
        self._draining = False
        self._retiring: set[asyncio.Task[None]] = set()
        self.current = load(model.source)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        await self.current.endpoint(scope, receive, send)

    def takes(self, scope: Message) -> bool:
        """Whether an endpoint answers this itself, rather than pass it on."""
        return self.current.endpoint.takes(scope)

    @property
    def rpc(self) -> Rpc:
        """The same over gRPC."""
        return self.current.endpoint.rpc

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.current.endpoint.ready

    def healthy(self) -> bool:
        """Whether answers are being computed."""
        return self.current.core.healthy()

    def report(self) -> dict[str, float]:
        """Work since the last report, for the autoscaler."""
        return self.current.core.report()

    async def arrange(self, wanted: Wanted) -> bool:
        """Serve what is wanted; whether that took another package. Raises what *load* does.

        Whatever is raised, everything is as it was. Who is being answered is answered to the end.
        """
        source = wanted.model().source
        if source.digest == self.current.source.digest:
            return False
        loaded = await asyncio.to_thread(self._load, source)
        if self._draining:
            await loaded.close(0)
            return False
        before, self.current = self.current, loaded
        _log.info("Package %s answers now", source.digest[:12])
        self._retire(before)
        return True

    async def finish(self, within_s: float) -> int:
        """Let nobody in, and wait until all have left, so long at most; how many have not."""
        self._draining = True
        _, left = await asyncio.gather(
            asyncio.wait(self._retiring, timeout=within_s) if self._retiring else asyncio.sleep(0),
            self.current.endpoint.in_flight.finish(within_s),
        )
        return left

    async def close(self) -> None:
        """Answer what waits; refuse what comes."""
        self._draining = True
        self.current.endpoint.in_flight.draining = True
        await self.current.core.close()
        await self.current.endpoint.close()
        for task in self._retiring:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._retiring)

    def _retire(self, loaded: Loaded) -> None:
        async def retire() -> None:
            await loaded.close(_FINISH_S)

        task = asyncio.get_running_loop().create_task(retire(), name="retire")
        self._retiring.add(task)
        task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("A package that was replaced could not be closed", exc_info=error)
        with contextlib.suppress(RuntimeError):  # the loop is being closed
            asyncio.get_running_loop().run_in_executor(None, give_back_memory)
