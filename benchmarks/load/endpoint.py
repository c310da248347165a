"""What an endpoint says of itself, and the texts it offers as examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.errors import ServerUnreachable
from benchmarks.workloads import Row
from serving.client import key_header


def fetch_info(url: str) -> Mapping[str, Any]:
    """What the endpoint says of itself at `/info`. Raises `ServerUnreachable`."""
    _refuse_no_address(url)
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/info", headers=key_header(), timeout=10.0, trust_env=False
        )
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ServerUnreachable(f"{url} wants an API key; put it into $MINIML_API_KEY.")
        response.raise_for_status()
        info = dict(response.json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError) as error:
        raise ServerUnreachable(
            f"No miniml endpoint answers at {url} ({error}); start one with `miniml serve`."
        ) from error
    if missing := [key for key in ("package_digest", "examples") if key not in info]:
        raise ServerUnreachable(
            f"No miniml endpoint answers at {url}: its /info tells no {missing[0]}; give the"
            " address that `miniml serve` printed."
        )
    return info


def _refuse_no_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not close, or a port beyond the last
        named = False
    if not named:
        raise ServerUnreachable(f"{url!r} is no address of an endpoint; give http://HOST:PORT.")


def examples(info: Mapping[str, Any]) -> list[Row]:
    """The texts an endpoint offers as examples: its golden texts."""
    return [{key: str(value) for key, value in row.items() if value} for row in info["examples"]]
