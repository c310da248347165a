"""Laws of callers who leave: their work ends, nobody else's does, and nothing is hidden."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from serving.protocols.leaving import CallerLeft, unless_left


class Caller:
    """ASGI's side of somebody who waits; *leave* closes the connection."""

    def __init__(self) -> None:
        self._left = asyncio.Event()

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive after the body."""
        await self._left.wait()
        return {"type": "http.disconnect"}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own, and never for ever."""
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_an_answer_is_passed_on() -> None:
    """Early or late, whoever stays gets what was computed, and errors as they are."""

    async def scenario() -> None:
        async def late(error: Exception | None) -> str:
            await asyncio.sleep(0.1)
            if error:
                raise error
            return "answer"

        assert await unless_left(asyncio.sleep(0, "at once"), Caller().receive) == "at once"
        assert await unless_left(late(None), Caller().receive) == "answer"
        with pytest.raises(ZeroDivisionError):
            await unless_left(late(ZeroDivisionError()), Caller().receive)

    run(scenario())


def test_work_ends_when_its_caller_leaves() -> None:
    """The computation is cancelled, this is told by an exception, and the task can go on."""

    async def scenario() -> None:
        caller, ended = Caller(), asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        asyncio.get_running_loop().call_soon(caller.leave)
        with pytest.raises(CallerLeft):
            await unless_left(work(), caller.receive)

        assert ended.is_set()
        await asyncio.sleep(0)  # a task that stays cancelled would end here

    run(scenario())


def test_a_cancellation_from_outside_stays_one() -> None:
    """Who cancels the task is obeyed, whether or not the caller has left as well."""

    async def scenario(*, leave: bool) -> None:
        caller, begun = Caller(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)  # an end that takes time: the other one comes meanwhile
                raise

        task = asyncio.create_task(unless_left(work(), caller.receive))
        await begun.wait()
        if leave:
            caller.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for leave in (False, True):
        run(scenario(leave=leave))
