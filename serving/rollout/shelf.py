"""The packages that a replica has loaded, and which of them answers a request.

Each is a whole endpoint with a core of its own. One is picked at a request's beginning and keeps it to
its end, so that an answer and the digest beside it are of the same package. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.core import Core
from serving.errors import ServingError, UnknownModel
from serving.memory import give_back_memory
from serving.offered import together
from serving.protocols.asgi import Endpoint, Message, Send
from serving.protocols.leaving import Receive
from serving.rollout.sharing import is_shared
from serving.rollout.wanted import Pinned, WantedModel
from serving.rollout.witness import Witness
from serving.shadow.beside import Beside

if TYPE_CHECKING:
    from serving.protocols.rpc import Context

_log = logging.getLogger(__name__)
# Of those who are answered by a package that another has replaced: a long stream of lines, as a rule.
_FINISH_S = 120.0
_VERSION, _CANARY_KEY, _REQUEST_ID = b"x-model-version", b"x-canary-key", b"x-request-id"
_VERSIONED = "/v2/models/"
_LEAST_DIGITS = 6  # of a digest; fewer may mean several


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A package that is ready to answer. witness: told of all that it does. since_s: of `time.time`."""

    source: Pinned
    core: Core
    endpoint: Endpoint
    witness: Witness
    since_s: float = field(default_factory=time.time)

    @property
    def beside(self) -> Beside:
        """Where a candidate stands that is compared with it."""
        return self.endpoint.here.beside

    async def close(self, within_s: float) -> None:
        """Answer who is here, so long at most, and give the memory back."""
        left = await self.endpoint.in_flight.finish(within_s)
        if left:
            _log.warning("%d requests took longer than %g s and are given up", left, within_s)
        await self.core.close()
        await self.endpoint.close()


Load = Callable[[Pinned], Loaded]


class NotLoaded(ServingError):
    """The package of this digest cannot be served here."""

    def __init__(self, digest: str, error: Exception) -> None:
        super().__init__(f"{error}", hint=getattr(error, "hint", ""))
        self.digest = digest


class Shelf:
    """Takes requests as `Endpoint` does, and hands them on. On the event loop alone, but for *load*.

    load: blocks for seconds, and raises when a package cannot be served here; called on a thread.
    """

    def __init__(self, model: WantedModel, load: Load) -> None:
        self._load = load
        self._draining = False
        self._retiring: set[asyncio.Task[None]] = set()
        self.current = load(model.source)
        self.canary: Loaded | None = None
        self._share = 0.0
        self.rpc = _SharedRpc(self)
        if model.canary:
            self.canary, self._share = load(model.canary), model.canary.share
        self.current.beside.arrange(model.shadow)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        loaded = self.current
        if scope["type"] == "http":
            try:
                loaded = self.pick(scope["headers"], scope["path"])
            except UnknownModel as error:
                scope["refused"] = error
        await loaded.endpoint(scope, receive, send)

    def pick(self, headers: Iterable[tuple[bytes, bytes]], path: str = "") -> Loaded:
        """Who answers this request: whom it names, or whose share it is. Raises `UnknownModel`."""
        named = caller = request = b""
        for name, value in headers:
            if name == _VERSION:
                named = value
            elif name == _CANARY_KEY:
                caller = value
            elif name == _REQUEST_ID:
                request = value
        if named:
            return self._named(named.decode("latin-1"))
        if self.canary is None:
            return self.current
        if path.startswith(_VERSIONED):  # a path that names its version
            is_canarys = path in self.canary.endpoint.routes
            if is_canarys != (path in self.current.endpoint.routes):
                return self.canary if is_canarys else self.current
        key = caller or request or os.urandom(8)
        shared = is_shared(key, self.canary.source.digest, self._share)
        return self.canary if shared else self.current

    def takes(self, scope: Message) -> bool:
        """Whether an endpoint answers this itself, rather than pass it on."""
        return any(loaded.endpoint.takes(scope) for loaded in self.loaded)

    @property
    def loaded(self) -> list[Loaded]:
        """Those that answer, the one for all others first."""
        return [self.current, self.canary] if self.canary else [self.current]

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return all(loaded.endpoint.ready for loaded in self.loaded)

    def healthy(self) -> bool:
        """Whether answers are being computed."""
        return all(loaded.core.healthy() for loaded in self.loaded)

    def report(self) -> dict[str, float]:
        """Work since the last report, for the autoscaler."""
        return together([loaded.core.report() for loaded in self.loaded])

    async def arrange(self, model: WantedModel) -> None:
        """Serve what is wanted. Raises `NotLoaded`.

        Whatever is raised, everything is as it was. Who is being answered is answered to the end.
        """
        known = {loaded.source.digest: loaded for loaded in self.loaded}
        sources: list[Pinned] = [model.source, *filter(None, [model.canary])]
        new: list[Loaded] = []
        try:
            for source in sources:
                if source.digest not in known:
                    known[source.digest] = await self._fetched(source)
                    new.append(known[source.digest])
        except NotLoaded:
            await asyncio.gather(*(loaded.close(0) for loaded in new))
            raise
        if self._draining:
            await asyncio.gather(*(loaded.close(0) for loaded in new))
            return
        before = self.loaded
        self.current = known[model.digest]
        self.canary = known[model.canary.digest] if model.canary else None
        self._share = model.canary.share if model.canary else 0.0
        for loaded in before:
            if loaded is not self.current:
                loaded.beside.arrange(None)
            if loaded not in self.loaded:
                self.retire(loaded)
        self.current.beside.arrange(model.shadow)

    async def _fetched(self, source: Pinned) -> Loaded:
        try:
            return await asyncio.to_thread(self._load, source)
        except Exception as error:
            raise NotLoaded(source.digest, error) from error

    def _named(self, version: str) -> Loaded:
        if version == "canary" and self.canary:
            return self.canary
        if len(version) >= _LEAST_DIGITS:
            for loaded in self.loaded:
                if loaded.source.digest.startswith(version):
                    return loaded
        there = ", ".join(loaded.source.digest[:12] for loaded in self.loaded)
        raise UnknownModel(
            f"There is no version {version[:100]!r} here, but {there}"
            f"{', of which the last is the canary' if self.canary else ''}."
        )

    async def finish(self, within_s: float) -> int:
        """Let nobody in, and wait until all have left, so long at most; how many have not."""
        self._draining = True
        left = await asyncio.gather(
            *(loaded.endpoint.in_flight.finish(within_s) for loaded in self.loaded)
        )
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=within_s)
        return sum(left)

    async def close(self) -> None:
        """Answer what waits; refuse what comes."""
        self._draining = True
        for loaded in self.loaded:
            loaded.endpoint.in_flight.draining = True
        for loaded in self.loaded:
            await loaded.core.close()
            await loaded.endpoint.close()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def retire(self, loaded: Loaded) -> asyncio.Task[None]:
        """Close it once nobody is answered by it any more, which ends the task."""
        task = asyncio.get_running_loop().create_task(loaded.close(_FINISH_S), name="retire")
        self._retiring.add(task)
        task.add_done_callback(self._retired)
        return task

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("A package that was replaced could not be closed", exc_info=error)
        with contextlib.suppress(RuntimeError):  # the loop is being closed
            asyncio.get_running_loop().run_in_executor(None, give_back_memory)


class _SharedRpc:
    """The calls of gRPC, each to the package that it names or whose share it is."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def call(self, name: str, message: Any, context: Context) -> Any:
        """As `Rpc.call`."""
        given = [
            (key.encode(), value if isinstance(value, bytes) else value.encode())
            for key, value in context.invocation_metadata() or ()
        ]
        try:
            loaded, refused = self._shelf.pick(given), None
        except UnknownModel as error:
            loaded, refused = self._shelf.current, error
        return await loaded.endpoint.rpc.call(name, message, context, refused=refused)
