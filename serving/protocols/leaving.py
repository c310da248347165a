"""Who waits for an answer may leave; then nobody wants it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
# Looking out costs a task; most answers are there before it is worth one.
_LOOK_OUT_AFTER_S = 0.05


class CallerLeft(Exception):
    """The caller has closed the connection."""


async def unless_left(answer: Awaitable[T], receive: Receive) -> T:
    """What *answer* gives; it is cancelled, and `CallerLeft` raised, once the caller has left.

    receive: ASGI's, of a request whose body has been read to its end.
    """
    task = asyncio.current_task()
    assert task, "a coroutine outside a task; this is a bug"
    loop = asyncio.get_running_loop()
    lookout: asyncio.Task[None] | None = None
    left = False

    async def look_out() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    def begin() -> None:
        nonlocal lookout
        lookout = loop.create_task(look_out())

    timer = loop.call_later(_LOOK_OUT_AFTER_S, begin)
    try:
        return await answer
    except asyncio.CancelledError:
        if left and not task.uncancel():  # else somebody else wants it to end, too
            raise CallerLeft from None
        raise
    finally:
        timer.cancel()
        if lookout:
            lookout.cancel()
