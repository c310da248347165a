"""What the hub keeps in `registry/hub` of the home: secrets, settings of its access, place, log.

secrets.json   the administrator's password and the key of MLflow's forms; its owner's alone
access.ini     settings of MLflow's basic-auth app; written at each start, no secret in it
users.db       who may ask, with hashes of passwords; MLflow's
artifacts      where bytes lie that came over HTTP, once an s3:// place was named
server.log     what MLflow said since the last start
"""

from __future__ import annotations

import configparser
import json
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from registry.connection import artifact_root, hub_folder, sqlite_uri
from registry.errors import BadReference, CannotServe
from registry.reference import ObjectReference, parse
from registry.transfer import require_bucket

ADMIN = "admin"
_SECRET_BYTES = 24
_REMEMBER_S = 60  # else MLflow hashes it several times a call: 1.1 s instead of 0.05 (docs/log.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Shown by nobody's `repr`. are_new: made by this start."""

    admin_password: str = field(repr=False)
    secret_key: str = field(repr=False)
    path: Path
    are_new: bool


def make_secrets() -> Secrets:
    """The secrets of this home, made once. Raises `CannotServe` when they are gone or unreadable."""
    path = _folder() / "secrets.json"
    are_new = not path.exists()
    if are_new:
        if _users().exists():
            raise CannotServe(
                f"{path} is gone, and {_users()} knows an administrator by it; "
                "bring it back, or remove both to begin with no users."
            )
        made = {name: secrets.token_urlsafe(_SECRET_BYTES) for name in ("password", "key")}
        _write_once(path, json.dumps(made))
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        password, key = str(kept["password"]), str(kept["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotServe(f"{path} cannot be read ({error}); bring it back.") from error
    return Secrets(admin_password=password, secret_key=key, path=path, are_new=are_new)


def write_settings() -> Path:
    """The file that MLflow's basic-auth app reads: everybody it knows may read, see `access`."""
    settings = configparser.ConfigParser()
    settings["mlflow"] = {
        "default_permission": "READ",
        "database_uri": sqlite_uri(_users()),
        "admin_username": ADMIN,
        "authorization_function": "registry.access:authorize",
        "auth_cache_ttl_seconds": str(_REMEMBER_S),
    }
    path = _folder() / "access.ini"
    with path.open("w", encoding="utf-8") as file:
        settings.write(file)
    return path


def keep_place(artifacts: str | None) -> str:
    """Where MLflow puts bytes: *artifacts*, or what was named before, or a folder of this home.

    Raises `CannotServe` for another place than before, since what lies there would be lost,
    `BadReference`, and what `require_bucket` raises.
    """
    path = _folder() / "artifacts"
    before = path.read_text(encoding="utf-8").strip() if path.exists() else None
    place = before if artifacts is None else _checked(artifacts, before)
    if place is None:
        return str(artifact_root())
    require_bucket(place)
    if before is None:
        _write_once(path, place)
    return place


def _checked(artifacts: str, before: str | None) -> str:
    parsed = parse(artifacts)
    if not isinstance(parsed, ObjectReference):
        raise BadReference(f"{artifacts!r} is no place for artifacts; write s3://bucket/prefix.")
    if before not in (None, parsed.uri):
        raise CannotServe(
            f"This registry keeps its bytes at {before}; leave --artifacts out, or begin another "
            "hub in an empty MINIML_HOME."
        )
    if before is None and any(artifact_root().glob("*")):
        raise CannotServe(
            f"{artifact_root()} holds what was published here; begin a hub with --artifacts in an "
            "empty MINIML_HOME, and push into it."
        )
    return parsed.uri


def open_log() -> IO[bytes]:
    """The server's log, begun anew, for its owner alone."""
    path = _folder() / "server.log"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "w+b")


def _folder() -> Path:
    folder = hub_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _users() -> Path:
    return hub_folder() / "users.db"


def _write_once(path: Path, text: str) -> None:
    """*text* in a new file of its owner's alone, all of it or nothing."""
    descriptor, part = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
