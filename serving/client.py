"""A small Python client: texts in, answers out, errors with the server's own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import httpx

from serving.errors import ServingError

_POLL_S = 0.1
_URL_HINT = "Give the address that `miniml serve` printed, as in http://127.0.0.1:8000."


class RemoteError(ServingError):
    """The server answered with an error, or not at all."""


class Client:
    """Talks to one endpoint over one keep-alive connection pool."""

    def __init__(self, url: str, *, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)
        except httpx.InvalidURL as error:
            raise RemoteError(f"{url!r} is not a URL ({error}).", hint=_URL_HINT) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self, text: str, text_pair: str | None = None, *, all_scores: bool = False
    ) -> dict[str, Any]:
        """The answer for one text: label, score, and more on request. Raises `RemoteError`."""
        body: dict[str, Any] = {"text": text, "all_scores": all_scores}
        if text_pair is not None:
            body["text_pair"] = text_pair
        return dict(self._post(body))

    def predict_many(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        all_scores: bool = False,
    ) -> list[dict[str, Any]]:
        """One answer a text, in order. Raises `RemoteError`."""
        body: dict[str, Any] = {"texts": list(texts), "all_scores": all_scores}
        if text_pairs is not None:
            body["text_pairs"] = list(text_pairs)
        return list(self._post(body))

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
                    return
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                pass
            time.sleep(_POLL_S)
        if not alive():
            raise RemoteError(f"The server at {self.url} stopped before it was ready.")
        raise RemoteError(f"Nothing became ready at {self.url} within {timeout_s:.0f} s.")

    def _post(self, body: dict[str, Any]) -> Any:
        try:
            response = self._http.post("/predict", json=body)
        except httpx.HTTPError as error:
            raise RemoteError(
                f"No answer from {self.url} ({error}).", hint="Is `miniml serve` running there?"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise _remote_error(response)
        try:
            return response.json()
        except ValueError as error:
            raise RemoteError(
                f"{response.url} answered, but not with JSON.", hint=_URL_HINT
            ) from error


def _remote_error(response: httpx.Response) -> RemoteError:
    try:
        detail = response.json()["error"]
        return RemoteError(str(detail["message"]), hint=str(detail["hint"]))
    except (ValueError, KeyError, TypeError):
        return RemoteError(f"{response.url} answered with status {response.status_code}.")
