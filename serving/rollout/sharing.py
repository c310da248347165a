"""Who is answered by the canary: a share of all, always the same ones. Pure."""

from __future__ import annotations

from hashlib import blake2b


def is_shared(key: bytes, digest: str, share: float) -> bool:
    """Whether the caller or request of this key belongs to the share of the package.

    The same key, package and share give the same answer in every replica; who belongs to a share belongs
    to every larger one. Another package draws others.
    """
    drawn = blake2b(key, digest_size=8, key=bytes.fromhex(digest)).digest()
    return int.from_bytes(drawn) < share * 2**64
