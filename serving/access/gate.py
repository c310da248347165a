"""Who may come in, and how much they may ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serving.access.keys import Key, KeyRing
from serving.errors import Forbidden, Unauthenticated

if TYPE_CHECKING:  # the library behind it takes memory that only those pay who use keys
    from serving.access.metering import Meter

# Whoever balances load or draws a page has no key.
OPEN_PATHS = frozenset(
    (
        *("/healthz", "/health", "/readyz", "/v2/health/live", "/v2/health/ready"),
        *("/", "/docs", "/openapi.json"),
    )
)
_BEARER = b"bearer "
# No door takes these; what does changes the server.
_CHANGING = ("DELETE", "PUT")


class Gate:
    """Asks for a key of *ring* and counts with *meter*."""

    def __init__(self, ring: KeyRing, meter: Meter) -> None:
        self._ring = ring
        self._meter = meter

    def admit(self, path: str, method: str, headers: Mapping[bytes, bytes]) -> Key | None:
        """Whose request it is; None where nobody is asked. Raises `Unauthenticated`, `Forbidden`."""
        if path in OPEN_PATHS and method in ("GET", "HEAD"):
            return None
        key = self._ring.find(_given(headers))
        if key is None:
            raise Unauthenticated(
                "A key that is valid is needed.", hint="Send authorization: Bearer KEY."
            )
        if method in _CHANGING and not key.admin:
            raise Forbidden(f"The key {key.name!r} may ask, but not change the server.")
        return key

    async def charge(self, key: Key | None, texts: int) -> None:
        """Count *texts* for *key*. Raises `RateLimited`, `QuotaUsedUp`."""
        if key is not None:
            await self._meter.take(key, texts)


def _given(headers: Mapping[bytes, bytes]) -> str:
    value = headers.get(b"authorization", b"")
    if value[: len(_BEARER)].lower() == _BEARER:
        value = value[len(_BEARER) :]
    else:
        value = headers.get(b"x-api-key", b"")
    return value.strip().decode("latin-1")
