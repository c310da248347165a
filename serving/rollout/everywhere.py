"""What is asked of every replica of an application at once, by Ray."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray import serve

from serving.observing.metrics import side_by_side
from serving.protocols.replicas import Here, report_of
from serving.rollout.following import Rollout
from serving.rollout.wanted import Wanted, WantedChange
from serving.shadow.report import ShadowReport, ShadowState

_ANSWER_S = 10.0


async def ask_all(method: str) -> list[Any]:
    """What *method* of the deployment gives in each replica, this one too."""
    context = serve.get_replica_context()
    handle: Any = serve.get_deployment_handle(context.deployment, context.app_name)
    answers: list[Any] = await handle.broadcast(method).results_async()
    return answers


class AllReplicas:
    """Every replica of this application: each is asked, by Ray. *here* is this one."""

    def __init__(self, here: Here) -> None:
        self._here = here

    async def cache_numbers(self) -> dict[str, float]:
        """Added up."""
        await self._here.cache_numbers()  # raises when none is kept; that is the same in all
        total: Counter[str] = Counter()
        for numbers in await ask_all("cache_numbers"):
            total.update(numbers)
        return dict(total)

    async def clear_cache(self) -> int:
        """In each, and in Redis."""
        # First, so that what it raises is told as it is, not as Ray wraps what others raise.
        removed = [await self._here.clear_cache()]
        return sum(removed + await ask_all("clear_cache"))

    async def metrics(self) -> bytes:
        """Each sample with its replica."""
        return side_by_side(await ask_all("metrics"))

    async def shadow(self) -> ShadowReport:
        """Of the pair of packages that most have side by side."""
        states: list[ShadowState | None] = await ask_all("shadow_state")
        return report_of(states)


class AllRollouts:
    """How every replica follows what is wanted. *here* gives this one's."""

    def __init__(self, here: Callable[[], Rollout]) -> None:
        self._here = here

    async def states(self) -> list[dict[str, Any]]:
        """Of each; of this one alone where the others do not answer in time."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await ask_all("rollout_state")
        except TimeoutError:
            return [await self._here().state()]

    async def change(self, change: WantedChange) -> Wanted:
        """From now on something else is wanted."""
        return await self._here().change(change)
