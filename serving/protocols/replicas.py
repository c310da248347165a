"""What can be asked of this replica, or of all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serving.caching.cache import Cache
from serving.core import Core
from serving.errors import NoCache, NoShadow
from serving.observing.metrics import Metrics
from serving.shadow.beside import Beside
from serving.shadow.report import ShadowReport, ShadowState, reported


class Replicas(Protocol):
    """One replica, or all of an application; of several, numbers are added up."""

    async def cache_numbers(self) -> dict[str, float]:
        """Live numbers of `serving.caching.cache.Cache`. Raises `NoCache` where none is kept."""
        ...

    async def clear_cache(self) -> int:
        """Forget everything, in Redis too; how many answers that were.

        Raises `NoCache`, `RedisUnreachable`.
        """
        ...

    async def metrics(self) -> bytes:
        """For Prometheus, in its text format."""
        ...

    async def shadow(self) -> ShadowReport:
        """How the candidate beside them does. Raises `NoShadow`."""
        ...


class Here:
    """This replica."""

    def __init__(self, core: Core, metrics: Metrics, beside: Beside) -> None:
        self._core = core
        self._metrics = metrics
        self.beside = beside

    async def cache_numbers(self) -> dict[str, float]:
        """Live numbers."""
        return self._cache.numbers()

    async def clear_cache(self) -> int:
        """Forget everything, here and in Redis."""
        return await self._cache.clear()

    async def metrics(self) -> bytes:
        """As they are now."""
        return self._metrics.text()

    async def shadow(self) -> ShadowReport:
        """Of this one alone."""
        return report_of([self.beside.state()])

    @property
    def _cache(self) -> Cache:
        if self._core.cache is None:
            raise NoCache("This server keeps no answers.", hint="Start it with --cache-mb above 0.")
        return self._core.cache


def report_of(states: Sequence[ShadowState | None]) -> ShadowReport:
    """As `reported`. Raises `NoShadow` where there is nothing to report."""
    if (report := reported(states)) is None:
        raise NoShadow(
            "No candidate runs beside what is served.", hint="Start one: miniml shadow start."
        )
    return report
