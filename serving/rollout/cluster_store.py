"""Keys and values in the store where Ray keeps its own state; they live as long as the cluster does.

Where that state is kept in Redis, so that the head may be lost, these are, too.
"""

from __future__ import annotations

from typing import Any

from ray.experimental import internal_kv as untyped_kv

_kv: Any = untyped_kv
_NAMESPACE = "miniml"


class ClusterStore:
    """A `Store`; each call is one round trip, about a millisecond."""

    def get(self, key: str) -> bytes | None:
        """What stands there."""
        found: bytes | None = _kv._internal_kv_get(key, namespace=_NAMESPACE)  # noqa: SLF001 - Ray's own libraries do
        return found

    def put(self, key: str, value: bytes) -> None:
        """Whatever stands there."""
        _kv._internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)  # noqa: SLF001

    def add(self, key: str, value: bytes) -> bool:
        """Whether nothing stood there."""
        stood = _kv._internal_kv_put(key, value, overwrite=False, namespace=_NAMESPACE)  # noqa: SLF001
        return not stood

    def remove(self, prefix: str) -> None:
        """All keys that begin so."""
        _kv._internal_kv_del(prefix, del_by_prefix=True, namespace=_NAMESPACE)  # noqa: SLF001
