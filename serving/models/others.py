"""Models beside the first one: loaded when somebody asks, unloaded to make room for another.

On the event loop alone, but for the load itself. Knows nothing of names, doors or Ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving.errors import DeadlineExceeded, NotReady
from serving.memory import anonymous_bytes
from serving.models.budget import Budget
from serving.rollout.shelf import Load, Loaded, NotLoaded
from serving.rollout.wanted import Pinned, WantedModel

_log = logging.getLogger(__name__)
_AGAIN_S = 30.0  # what is wrong with a package is seldom mended sooner
# What a load took is measured beside requests, which take memory, too, and give some back. It is at least
# what the files are, whose constants are mapped, not read. The demo's package of 23 MiB took 28.
_MOST_OF_FILES, _MOST_BESIDE_BYTES = 4, 64 * 2**20


@dataclass(slots=True, kw_only=True)
class Other:
    """A model beside the first. refused: why it could not be loaded; not tried before again_s."""

    model: WantedModel
    loaded: Loaded | None = None
    size_bytes: int = 0
    loads: int = 0
    failures: int = 0
    refused: str = ""
    again_s: float = 0.0  # of `time.monotonic`
    loading: asyncio.Task[None] | None = None

    def shown(self) -> dict[str, Any]:
        """As `Rollout.state` has it of the first model, and whether it is loaded; bytes: of the last load."""
        witness = self.loaded.witness if self.loaded else None
        conduct = witness.conduct() if witness else None
        return {
            "name": self.model.name,
            "package": self.model.package,
            "digest": self.model.digest,
            "canary_share": None,
            "since": self.loaded.since_s if self.loaded else None,
            "answered": conduct.answered if conduct else 0,
            "failed": conduct.failed if conduct else 0,
            "p99_ms": witness.p99_ms if witness else None,
            "loaded": self.loaded is not None,
            "bytes": self.size_bytes or None,
            "refused": self.refused,
        }


class Others:
    """Of *models*, together within *most_bytes*.

    load: as `Shelf` has it. retire: takes a package that answers no more, and gives a task that ends
    once its memory is free.
    """

    def __init__(
        self,
        models: Sequence[WantedModel],
        load: Load,
        *,
        most_bytes: int,
        retire: Callable[[Loaded], asyncio.Task[None]],
    ) -> None:
        self.all = tuple(Other(model=model) for model in models)
        self._load = load
        self._retire = retire
        self._budget = Budget(most_bytes)
        self._alone = asyncio.Lock()  # one load at a time: it takes all cores, and it is measured
        self._draining = False

    @property
    def loaded(self) -> list[Loaded]:
        """Those that are."""
        return [other.loaded for other in self.all if other.loaded]

    @contextmanager
    def used(self, other: Other) -> Iterator[None]:
        """It stays for as long as somebody has to do with it."""
        self._budget.enter(other.model.name)
        try:
            yield
        finally:
            self._budget.leave(other.model.name)
            self._trim()

    async def opened(self, other: Other, within_ms: float = math.inf) -> Loaded:
        """Once it is loaded, by whoever came first; within `used`.

        Raises `NotReady` with the reason where it cannot be, and `DeadlineExceeded`; then the load goes on.
        """
        try:
            async with asyncio.timeout(None if within_ms == math.inf else within_ms / 1e3):
                while (loaded := other.loaded) is None:
                    self._refuse_unloadable(other)
                    if other.loading is None or other.loading.done():
                        loop = asyncio.get_running_loop()
                        other.loading = loop.create_task(self._open(other), name="load")
                    await asyncio.shield(other.loading)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{other.model.name} was not loaded within {within_ms:g} ms."
            ) from None
        return loaded

    async def arrange(self, models: Sequence[WantedModel]) -> None:
        """Other packages for those that have another; loaded, and so proven, at once. Raises `NotLoaded`.

        The one that it is raised of stays as it was.
        """
        async with self._alone:
            for other, model in zip(self.all, models, strict=True):
                if model.digest != other.model.digest:
                    await self._put(other, model)
                other.model = model

    async def finish(self, within_s: float) -> int:
        """Let nobody in, and wait until all have left, so long at most; how many have not."""
        self._draining = True
        return sum(
            await asyncio.gather(
                *(loaded.endpoint.in_flight.finish(within_s) for loaded in self.loaded)
            )
        )

    async def close(self) -> None:
        """Answer what waits; refuse what comes."""
        self._draining = True
        await asyncio.gather(*(other.loading for other in self.all if other.loading))
        await asyncio.gather(*(loaded.close(0) for loaded in self.loaded))

    def _refuse_unloadable(self, other: Other) -> None:
        if self._draining:
            raise NotReady("This replica is shutting down.", hint="Ask again.")
        left_s = other.again_s - time.monotonic()
        if other.refused and left_s > 0:
            told = f"{other.model.name} cannot be loaded: {other.refused}"
            raise NotReady(told, retry_after_s=left_s)

    async def _open(self, other: Other) -> None:
        """Have it loaded, or know why not."""
        async with self._alone:
            if other.loaded or self._draining:  # by a deploy, meanwhile
                return
            # Those who make room are gone before it comes: else the memory of all would be needed.
            await asyncio.gather(*self._trim(other.size_bytes), return_exceptions=True)
            try:
                await self._put(other, other.model)
            except NotLoaded as error:
                _log.warning("%s cannot be loaded: %s", other.model.name, error)
                other.failures += 1
                other.refused, other.again_s = f"{error}", time.monotonic() + _AGAIN_S

    async def _put(self, other: Other, model: WantedModel) -> None:
        """Have the package answer from now on. Raises `NotLoaded`."""
        try:
            loaded, size_bytes = await asyncio.to_thread(self._measured, model.source)
        except Exception as error:
            raise NotLoaded(model.digest, error) from error
        if self._draining:
            await loaded.close(0)
            return
        before, other.loaded, other.model = other.loaded, loaded, model
        other.size_bytes, other.refused = size_bytes, ""
        other.loads += 1
        if before:
            self._retire(before)
        self._budget.add(model.name, size_bytes)
        self._trim()

    def _measured(self, source: Pinned) -> tuple[Loaded, int]:
        """And the bytes that it took."""
        before_bytes = anonymous_bytes()
        loaded = self._load(source)
        files = loaded.core.package.folder.rglob("*")
        file_bytes = sum(file.stat().st_size for file in files if file.is_file())
        most_bytes = _MOST_OF_FILES * file_bytes + _MOST_BESIDE_BYTES
        return loaded, min(max(anonymous_bytes() - before_bytes, file_bytes), most_bytes)

    def _trim(self, more_bytes: int = 0) -> list[asyncio.Task[None]]:
        """Unload what is beyond the budget, with room for so many more."""
        going = set(self._budget.surplus(more_bytes))
        tasks = []
        for other in self.all:
            if other.loaded and other.model.name in going:
                _log.info("%s is unloaded: others need its memory", other.model.name)
                self._budget.remove(other.model.name)
                tasks.append(self._retire(other.loaded))
                other.loaded = None
        return tasks
