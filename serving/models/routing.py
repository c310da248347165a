"""Several models in one replica: which of them answers a request.

The first stands on its shelf from the start to the end, with its canary and its shadow. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from serving.access.gate import OPEN_PATHS, Gate
from serving.errors import ServingError, UnknownModel
from serving.models.names import Meant, NamedModel, asked_for, called, find
from serving.models.others import Others
from serving.offered import together
from serving.protocols.asgi import Message, Send
from serving.protocols.headers import within_ms
from serving.protocols.leaving import Receive
from serving.rollout.shelf import Load, Loaded, Shelf
from serving.rollout.wanted import WantedModel

if TYPE_CHECKING:
    from serving.protocols.rpc import Context

_PATHS = "/v2/models/"


class Models:
    """Takes requests as `Shelf` does, which is the first model's. On the event loop alone, but for *load*.

    models: all of them, the first, too. most_bytes: for the others together. gate: who may come in.
    """

    def __init__(
        self,
        shelf: Shelf,
        models: Sequence[WantedModel],
        load: Load,
        *,
        most_bytes: int,
        gate: Gate | None = None,
    ) -> None:
        self.shelf = shelf
        self._first = models[0]
        self._gate = gate
        self.others = Others(models[1:], load, most_bytes=most_bytes, retire=shelf.retire)
        self.rpc = _ModelsRpc(self)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        named = _named(scope)
        try:
            meant = self.find(named) if named else Meant(place=0)
        except UnknownModel as error:
            await self._refuse(scope, error, receive, send)
            return
        if named is None or meant == Meant(place=0):
            await self.shelf(scope, receive, send)
            return
        with self.used(meant):
            try:
                headers = dict(scope["headers"])
                admit = self._admitting(scope, headers)
                loaded = await self.answering(meant, within_ms(headers), admit=admit)
            except ServingError as error:
                await self._refuse(scope, error, receive, send)
            else:
                await loaded.endpoint(_as_known(scope, named, loaded), receive, send)

    def find(self, named: NamedModel) -> Meant:
        """Raises `UnknownModel`, with the names there are."""
        return find([self._first, *(other.model for other in self.others.all)], named)

    def used(self, meant: Meant) -> AbstractContextManager[None]:
        """The model stays for as long as somebody has to do with it."""
        return self.others.used(self.others.all[meant.place - 1]) if meant.place else nullcontext()

    async def answering(
        self, meant: Meant, within_ms: float = math.inf, *, admit: Callable[[], object]
    ) -> Loaded:
        """The package that answers, loaded now where it was not, if *admit* does not raise; within `used`.

        Raises what `Others.opened` does, and `UnknownModel`.
        """
        there = self.shelf.loaded
        if meant.place:
            other = self.others.all[meant.place - 1]
            if (loaded := other.loaded) is None:
                admit()
                loaded = await self.others.opened(other, within_ms)
            there = [loaded]
        for loaded in there:
            if meant.digest in ("", loaded.source.digest):
                return loaded
        raise UnknownModel(f"Package {meant.digest[:12]} was replaced just now.")

    def takes(self, scope: Message) -> bool:
        """Whether an endpoint answers this itself, rather than pass it on."""
        if scope["type"] == "http" and scope["path"].startswith(_PATHS):
            return True
        return self.shelf.takes(scope)

    @property
    def current(self) -> Loaded:
        """The first model's."""
        return self.shelf.current

    @property
    def loaded(self) -> list[Loaded]:
        """All that are, the first model's first."""
        return self.shelf.loaded + self.others.loaded

    @property
    def ready(self) -> bool:
        """Whether the first model answers."""
        return self.shelf.ready

    def healthy(self) -> bool:
        """Whether answers are being computed."""
        return all(loaded.core.healthy() for loaded in self.loaded)

    def report(self) -> dict[str, float]:
        """Work of all since the last report, for the autoscaler: they share the cores."""
        return together([self.shelf.report(), *(each.core.report() for each in self.others.loaded)])

    def listing(self) -> list[dict[str, Any]]:
        """Every model, the first one first: its package, whether it is loaded, how large, why not."""
        names = ("name", "package", "digest", "loaded", "bytes", "refused")
        first = {name: getattr(self._first, name) for name in names[:3]}
        shown = [other.shown() for other in self.others.all]
        return [
            {**first, "loaded": True, "bytes": None, "refused": ""},
            *({name: other[name] for name in names} for other in shown),
        ]

    async def arrange(self, models: Sequence[WantedModel]) -> None:
        """Serve what is wanted. Raises `NotLoaded`; the model that it is raised of stays as it was."""
        await self.others.arrange(models[1:])
        await self.shelf.arrange(models[0])
        self._first = models[0]

    async def finish(self, within_s: float) -> int:
        """Let nobody in, and wait until all have left, so long at most; how many have not."""
        return sum(await asyncio.gather(self.shelf.finish(within_s), self.others.finish(within_s)))

    async def close(self) -> None:
        """Answer what waits; refuse what comes."""
        await self.others.close()
        await self.shelf.close()

    def _admitting(self, scope: Message, headers: dict[bytes, bytes]) -> Callable[[], object]:
        """Asks for a key, before it is asked for again: nobody else may have a model loaded."""
        return lambda: self._gate and self._gate.admit(scope["path"], scope["method"], headers)

    async def _refuse(
        self, scope: Message, error: ServingError, receive: Receive, send: Send
    ) -> None:
        await self.current.endpoint({**scope, "refused": error}, receive, send)


def _named(scope: Message) -> NamedModel | None:
    """The model that a request names; none where it asks of the server."""
    if scope["type"] != "http" or (scope["path"] in OPEN_PATHS and scope["method"] != "POST"):
        return None
    return asked_for(scope["headers"], scope["path"])


def _as_known(scope: Message, named: NamedModel, loaded: Loaded) -> Message:
    """The path as the package's own endpoint has it: the package may call itself otherwise."""
    if named.tail is None:
        return scope
    return {**scope, "path": f"{_PATHS}{loaded.core.package.config.name}{named.tail}"}


class _ModelsRpc:
    """The calls of gRPC, each to the model that its message names."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def call(self, name: str, message: Any, context: Context) -> Any:
        """As `Rpc.call`."""
        prefix = "model_" if hasattr(message, "model_name") else ""
        model = getattr(message, f"{prefix}name", "")
        if not model:
            return await self._models.shelf.rpc.call(name, message, context)
        models, rpc = self._models, self._models.current.endpoint.rpc
        try:
            meant = models.find(called(model, getattr(message, f"{prefix}version")))
            if meant == Meant(place=0):
                return await models.shelf.rpc.call(name, message, context)
            with models.used(meant):
                loaded = await models.answering(meant, admit=lambda: rpc.admit(name, context))
                setattr(message, f"{prefix}name", loaded.core.package.config.name)
                setattr(message, f"{prefix}version", "")  # it is the one that was named
                return await loaded.endpoint.rpc.call(name, message, context)
        except ServingError as error:
            return await rpc.call(name, message, context, refused=error)
