"""`miniml cache stats` and `miniml cache clear`: the answers that a server knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from rich.table import Table

from serving.client import RemoteError, key_header
from serving.options import CacheOptions

_NAMES = {
    "cache_entries": "answers in memory",
    "cache_bytes": "bytes they take",
    "cache_memory_hits": "texts found in memory",
    "cache_redis_hits": "texts found in Redis",
    "cache_joined": "texts computed for an equal one just then",
    "cache_misses": "texts computed",
    "cache_redis_failures": "times that Redis failed or was late",
    "cache_redis_dropped_writes": "writes to Redis left out, there being too many",
    "cache_redis_resting": "replicas that leave Redis alone now",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheNumbers:
    """Of all replicas together, since each started."""

    numbers: dict[str, float]

    @property
    def hit_share(self) -> float:
        """Of texts that needed no computation of their own; 0 when none came."""
        known = sum(
            self.numbers.get(f"cache_{name}", 0.0)
            for name in ("memory_hits", "redis_hits", "joined")
        )
        return known / ((known + self.numbers["cache_misses"]) or 1.0)

    def document(self) -> dict[str, float]:
        """The numbers, with the share of hits."""
        return self.numbers | {"cache_hit_share": round(self.hit_share, 4)}

    def __rich__(self) -> Table:
        """A row a number."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", justify="right")
        table.add_column()
        for name, words in _NAMES.items():
            if name in self.numbers:
                table.add_row(f"{self.numbers[name]:,.0f}", words)
        table.add_row(f"{self.hit_share:.1%}", "of texts were known")
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """How many answers were forgotten."""

    answers: int

    def document(self) -> dict[str, int]:
        """As JSON."""
        return {"cleared": self.answers}

    def __rich__(self) -> str:
        """One sentence."""
        return f"Forgot {self.answers} answers."


class Absent(RemoteError):
    """The server has no such thing."""


def cache_stats(options: CacheOptions) -> CacheNumbers:
    """Ask the server. Raises `RemoteError` when it does not answer or keeps none."""
    return CacheNumbers(numbers=ask(options.url, "GET", "/cache"))


def clear_cache(options: CacheOptions) -> Cleared:
    """Forget what the replicas know, and what Redis does. Raises `RemoteError`."""
    return Cleared(answers=int(ask(options.url, "DELETE", "/cache")["cleared"]))


def ask(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The document that a server answers. Raises `RemoteError`, for a 404 `Absent`."""
    url = url.rstrip("/")
    try:
        with httpx.Client(headers=key_header(), timeout=60.0, trust_env=False) as client:
            response = client.request(method, f"{url}{path}", json=body)
        document = response.json()
        if response.is_success:
            return dict(document)
        detail = document["error"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(
            f"No answer from {url} ({error}).", hint="Is `miniml serve` running there?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(f"{url} answered, but not as miniml does.") from error
    kind = Absent if response.status_code == httpx.codes.NOT_FOUND else RemoteError
    raise kind(str(detail["message"]), hint=str(detail["hint"]))
