"""Laws of the Python client: every text once and in order, patience that ends, one set of words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import AsyncClient, Client, RemoteError
from serving.conversation import Pause, converse
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
URL = "http://127.0.0.1:1"
BODY = {"text": "good"}


def response(status: int, document: Any = None, **headers: str) -> httpx.Response:
    """As a server would answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    content = b"" if document is None else json.dumps(document).encode()
    return httpx.Response(
        status, headers=names, content=content, request=httpx.Request("POST", URL)
    )


BUSY = response(429, {"error": {"type": "Overloaded", "message": "full", "hint": "later"}})
RESTARTS = response(503, None, retry_after="2")
GONE = httpx.ConnectError("refused")
SLOW = httpx.ReadTimeout("too slow")


def told(
    outcomes: list[httpx.Response | httpx.HTTPError], tries: int = 6
) -> tuple[Any, list[float]]:
    """How a conversation with these outcomes ends, and its pauses in seconds."""
    conversation, left = converse(URL, BODY, tries=tries), iter(outcomes)
    pauses: list[float] = []
    outcome: httpx.Response | httpx.HTTPError | None = None
    while True:
        try:
            step = conversation.send(outcome)
        except StopIteration as end:
            return end.value, pauses
        except RemoteError as error:
            return error, pauses
        if isinstance(step, Pause):
            pauses.append(step.seconds)
            outcome = None
        else:
            assert step == BODY
            outcome = next(left)


@given(st.lists(st.sampled_from([BUSY, RESTARTS, GONE, response(502)]), max_size=5))
def test_who_is_busy_is_asked_again(before: list[httpx.Response | httpx.HTTPError]) -> None:
    """An answer after up to five failures is the answer, with a pause before each new try."""
    answer, pauses = told([*before, response(200, {"label": "x"})])

    assert answer == {"label": "x"}
    assert len(pauses) == len(before)
    for place, (outcome, pause) in enumerate(zip(before, pauses, strict=True)):
        least = 2.0 if outcome is RESTARTS else 0.1 * 2**place
        assert least <= pause <= 1.5 * least


def test_patience_ends(subtests: pytest.Subtests) -> None:
    """After the last try the last outcome is raised, in the server's own words where it has some."""
    for outcome, words in ((BUSY, "full"), (GONE, "No answer"), (RESTARTS, "status 503")):
        with subtests.test(words):
            error, pauses = told([outcome] * 3, tries=3)

            assert words in str(error)
            assert len(pauses) == 2


def test_an_address_where_nobody_ever_answered_is_said_at_once() -> None:
    """It is wrong as likely as not; who answers that it is busy is somebody."""
    conversation = converse(URL, BODY, tries=6, known=False)
    assert conversation.send(None) == BODY
    with pytest.raises(RemoteError, match="No answer"):
        conversation.send(GONE)
    conversation = converse(URL, BODY, tries=6, known=False)
    conversation.send(None)

    assert isinstance(conversation.send(BUSY), Pause)
    assert conversation.send(None) == BODY
    assert isinstance(conversation.send(GONE), Pause)


@pytest.mark.parametrize("outcome", [response(422), response(404), response(500), SLOW])
def test_what_will_not_pass_is_said_at_once(outcome: httpx.Response | httpx.HTTPError) -> None:
    """Wrong input, a bug, or a call too slow to be run twice."""
    error, pauses = told([outcome])

    assert isinstance(error, RemoteError)
    assert pauses == []


def test_both_clients_answer_any_number_in_order(package: Package, listening: Listening) -> None:
    """More texts than one call holds, over both clients: each text's own answer in its place."""
    texts = [f"{'good' if n % 3 else 'bad'} soup {n}" for n in range(150)]
    with listening(package) as url:
        with Client(url, texts_per_call=7) as client:
            many = client.predict_many(texts, scores="all")
            singles = [client.predict(text, scores="all") for text in texts[:9]]

        async def ask() -> tuple[list[dict[str, Any]], dict[str, Any]]:
            async with AsyncClient(url, texts_per_call=7) as client:
                return (
                    await client.predict_many(texts, scores="all"),
                    await client.predict(texts[0], scores="all"),
                )

        theirs, one = asyncio.run(ask())

    assert many == theirs
    assert many[:9] == singles
    assert one == many[0]


def test_pairs_stay_together(make_package: Callable[..., Package], listening: Listening) -> None:
    """The second texts go with their first ones, call by call; other numbers are refused here."""
    with listening(make_package(text_pair=True)) as url, Client(url, texts_per_call=2) as client:
        texts, pairs = ["good", "bad", "soup"], ["warm", "cold", "not"]
        many = client.predict_many(texts, pairs)

        assert many == [client.predict(t, p) for t, p in zip(texts, pairs, strict=True)]
        with pytest.raises(ValueError, match="3 texts, but 2"):
            client.predict_many(texts, pairs[:2])


def test_an_error_in_one_call_is_the_answer_of_all(package: Package, listening: Listening) -> None:
    """No half of an answer: the server's words are raised, by both clients."""
    texts = ["good"] * 20 + [""]

    async def ask(url: str) -> None:
        async with AsyncClient(url, texts_per_call=4) as client:
            await client.predict_many(texts)

    with listening(package) as url:
        with pytest.raises(RemoteError, match="is empty"):
            asyncio.run(ask(url))
        with Client(url, texts_per_call=4) as client, pytest.raises(RemoteError, match="is empty"):
            client.predict_many(texts)
