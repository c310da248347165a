"""The Python client: texts in, answers out, errors with the server's own words.

    with Client("http://127.0.0.1:8000") as client:
        client.predict("Great soup, slow waiter", top_k=2)
        client.predict_many(texts)              # any number, in order

`AsyncClient` is the same with `await`. Options are the fields of `POST /predict`. A server that is
busy or restarts is asked again, when it says or later each time; other errors are raised at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from serving.conversation import (
    URL_HINT,
    Body,
    Conversation,
    Done,
    Outcome,
    Pause,
    RemoteError,
    converse,
    go_on,
)

__all__ = ["AsyncClient", "Client", "RemoteError", "key_header"]

_POLL_S = 0.1


def key_header(api_key: str | None = None) -> dict[str, str]:
    """The header with the key, or with $MINIML_API_KEY; empty without either."""
    key = api_key or os.environ.get("MINIML_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


class _Common:
    """What both clients are told.

    model: which, where a server has several; default: its first. api_key: else $MINIML_API_KEY. tries: of
    each call, at most. texts_per_call: of `predict_many`.
    """

    def __init__(  # noqa: PLR0913 - every one but the first has a default that is right
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        tries: int = 8,
        texts_per_call: int = 64,
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = key_header(api_key) | ({"x-model": model} if model else {})
        self._timeout_s = timeout_s
        self._tries = tries
        self._texts_per_call = texts_per_call
        self._known = False  # whether somebody has answered there

    def _one(self, text: str, text_pair: str | None, options: Body) -> Conversation:
        pair = {} if text_pair is None else {"text_pair": text_pair}
        return self._converse({"text": text, **pair, **options})

    def _converse(self, body: Body) -> Conversation:
        return converse(self.url, body, tries=self._tries, known=self._known)

    def _many(
        self, texts: Sequence[str], pairs: Sequence[str] | None, options: Body
    ) -> Iterator[Conversation]:
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts, but {len(pairs)} second texts")
        for start in range(0, len(texts), self._texts_per_call):
            part = slice(start, start + self._texts_per_call)
            body: Body = {"texts": list(texts[part]), **options}
            if pairs is not None:
                body["text_pairs"] = list(pairs[part])
            yield self._converse(body)


class Client(_Common):
    """Talks to one endpoint over one keep-alive connection pool."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        try:
            self._http = httpx.Client(
                base_url=self.url, headers=self._headers, timeout=self._timeout_s, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise _no_url(url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, text: str, text_pair: str | None = None, **options: Any) -> dict[str, Any]:
        """The answer for one text: label, score, and more on request. Raises `RemoteError`."""
        return dict(self._drive(self._one(text, text_pair, options)))

    def predict_many(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """One answer a text, in order. Raises `RemoteError`."""
        calls = self._many(texts, text_pairs, options)
        return [answer for call in calls for answer in self._drive(call)]

    def wait_ready(self, *, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
        """Return once the endpoint is ready.

        Raises `RemoteError` after *timeout_s*, or at once when *alive* says that nobody will answer.
        """
        deadline_s = time.monotonic() + timeout_s
        while alive() and time.monotonic() < deadline_s:
            try:
                # The body tells our endpoint from a proxy that answers for a replica yet to come.
                response = self._http.get("/readyz", timeout=2.0)
                if response.status_code == httpx.codes.OK and response.json()["status"] == "ok":
                    self._known = True
                    return
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                pass
            time.sleep(_POLL_S)
        if not alive():
            raise RemoteError(f"The server at {self.url} stopped before it was ready.")
        raise RemoteError(f"Nothing became ready at {self.url} within {timeout_s:.0f} s.")

    def _drive(self, conversation: Conversation) -> Any:
        outcome: Outcome | None = None
        while not isinstance(step := go_on(conversation, outcome), Done):
            outcome = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                outcome = self._send(step)
        return step.answer

    def _send(self, body: Body) -> Outcome:
        try:
            outcome = self._http.post("/predict", json=body)
        except httpx.HTTPError as error:
            return error
        self._known = True
        return outcome


class AsyncClient(_Common):
    """The same for an event loop; the calls of `predict_many` run *concurrency* at once."""

    def __init__(self, url: str, *, concurrency: int = 4, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._free = asyncio.Semaphore(concurrency)
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=self._headers,
                timeout=self._timeout_s,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise _no_url(url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self, text: str, text_pair: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """The answer for one text. Raises `RemoteError`."""
        return dict(await self._drive(self._one(text, text_pair, options)))

    async def predict_many(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """One answer a text, in order; the first call that fails ends the others. `RemoteError`."""
        try:
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(self._drive(call))
                    for call in self._many(texts, text_pairs, options)
                ]
        except* RemoteError as failed:
            raise failed.exceptions[0] from None
        return [answer for call in calls for answer in call.result()]

    async def _drive(self, conversation: Conversation) -> Any:
        outcome: Outcome | None = None
        while not isinstance(step := go_on(conversation, outcome), Done):
            outcome = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                outcome = await self._send(step)
        return step.answer

    async def _send(self, body: Body) -> Outcome:
        try:
            async with self._free:
                outcome = await self._http.post("/predict", json=body)
        except httpx.HTTPError as error:
            return error
        self._known = True
        return outcome


def _no_url(url: str, error: httpx.InvalidURL) -> RemoteError:
    return RemoteError(f"{url!r} is not a URL ({error}).", hint=URL_HINT)
