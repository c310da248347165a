"""API keys: who may ask. A file holds their hashes; the secrets are shown once and kept nowhere.

A key is `mm_ID_SECRET`: the id finds it, and the secret's hash is compared in constant time. Secrets
are 256 random bits, so that one round of SHA-256 is enough. A ring looks at its file again when it
has changed, so a key that is revoked stops within a second, without a restart.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.home import home
from serving.errors import NotReady, ServingError
from serving.options import ServeOptions

_log = logging.getLogger(__name__)
_PREFIX, _PARTS = "mm", 3
_ID_BYTES, _SECRET_BYTES = 6, 32
_LOOK_AGAIN_S = 0.5
_PRIVATE = 0o600


class KeyProblem(ServingError):
    """Keys cannot be read or written, or there is no such key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One caller. digest: SHA-256 of the whole key. Limits are in texts; None is none."""

    name: str
    id: str
    digest: str
    created_at: str
    texts_per_s: int | None = None
    texts_per_day: int | None = None
    admin: bool = False


def default_keys() -> Path:
    """Under miniml's home."""
    return home() / "keys.json"


def read_keys(path: Path) -> tuple[Key, ...]:
    """All of *path*; none where there is no such file. Raises `KeyProblem` for another kind of file."""
    try:
        rows = json.loads(path.read_bytes())["keys"]
        return tuple(Key(**row) for row in rows)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyProblem(f"{path} holds no keys that can be read ({error}).") from error


def keys_for(options: ServeOptions) -> Path | None:
    """The file whose keys a server with *options* asks for; None asks nobody.

    Raises `KeyProblem` where a server beyond this machine would ask nobody, or a file holds no key.
    """
    path = options.keys
    if path is None and not options.insecure and not is_loopback(options.host):
        path = default_keys()
        if not read_keys(path):
            raise KeyProblem(
                f"At {options.host} everybody on the network could ask.",
                hint="Make a key (miniml keys create NAME), or say --insecure.",
            )
    if path is not None and not read_keys(path):
        raise KeyProblem(f"{path} holds no key.", hint="Make one: miniml keys create NAME.")
    return None if path is None else path.absolute()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches who listens at *host*."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def create_key(path: Path, name: str, **settings: Any) -> tuple[Key, str]:
    """A new key in *path* and its secret, which cannot be had again. Raises `KeyProblem`."""
    identity, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    whole = f"{_PREFIX}_{identity}_{secret}"
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    digest = hashlib.sha256(whole.encode()).hexdigest()
    key = Key(name=name, id=identity, digest=digest, created_at=created_at, **settings)
    with _exclusive(path) as keys:
        if any(other.name == name for other in keys):
            raise KeyProblem(f"There is a key {name!r} already; revoke it or choose another name.")
        _write(path, [*keys, key])
    return key, whole


def revoke_key(path: Path, name: str) -> Key:
    """Take *name* out of *path*. Raises `KeyProblem` when it is not there."""
    with _exclusive(path) as keys:
        for key in keys:
            if key.name == name:
                _write(path, [other for other in keys if other is not key])
                return key
    there = ", ".join(key.name for key in read_keys(path)) or "none"
    raise KeyProblem(f"There is no key {name!r} in {path}; there are: {there}.")


@contextmanager
def _exclusive(path: Path) -> Iterator[tuple[Key, ...]]:
    """The keys of *path*, while nobody else changes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield read_keys(path)


def _write(path: Path, keys: Sequence[Key]) -> None:
    """All of *keys*, or nothing; for the owner's eyes only."""
    staged = path.with_suffix(".new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"schema_version": 1, "keys": [asdict(key) for key in keys]}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


class KeyRing:
    """The keys of a file, as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = -1.0
        self._keys: dict[str, Key] = {}
        self._problem: KeyProblem | None = None
        self._read()
        if self._problem:
            raise self._problem

    def find(self, given: str) -> Key | None:
        """Whose key *given* is; None for nobody's. Raises `NotReady` while the file is unreadable."""
        self._read()
        if self._problem:  # whoever was let in may not be any more: nobody is
            raise NotReady("The keys of this server cannot be read now; its log says why.")
        parts = given.split("_", _PARTS - 1)
        key = self._keys.get(parts[1]) if len(parts) == _PARTS else None
        digest = hashlib.sha256(given.encode()).hexdigest()
        # Compared with something where there is no such id, too: time must not tell.
        right = hmac.compare_digest(digest, key.digest if key else "0" * len(digest))
        return key if key and right else None

    def _read(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_AGAIN_S and self._looked_s >= 0:
            return
        self._looked_s = now_s
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            seen = None
        if seen is None or seen != self._seen or self._problem:
            before, self._keys, self._problem = self._problem, {}, None
            try:
                self._keys = {key.id: key for key in read_keys(self._path)}
            except KeyProblem as problem:
                self._problem = problem
                if not before:
                    _log.error("Nobody is let in: %s", problem)
            self._seen = seen
