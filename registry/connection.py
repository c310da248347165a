"""The way to MLflow: which store, its first creation, its lock, and its errors in our words.

MLflow takes seconds to import; it is imported inside these functions.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from registry.errors import NotAllowed, NotFound, RegistryError, StoreUnavailable
from registry.home import home

# Set before MLflow reads them, and only where the user has not.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default 7 waits four minutes for a dead server
}
_ATTEMPTS = 10
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_CREDENTIALS = re.compile(r"//[^/@]*@")
_SERVERS_FAULT = re.compile(r"^5\d\d Server Error|too many 5\d\d error")


def embedded_folder() -> Path:
    """Where the embedded store lies; not created here."""
    return home() / "registry"


def artifact_root() -> Path:
    """Embedded, the folder that holds a folder for each run."""
    return embedded_folder() / "artifacts"


def hub_folder() -> Path:
    """What `registry.hub` keeps beside the embedded store: users, secrets, its log."""
    return embedded_folder() / "hub"


def served_root() -> str:
    """Where bytes lie that came over HTTP: a path, or the s3:// place that the hub keeps them in."""
    try:
        return (hub_folder() / "artifacts").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return str(artifact_root())


def server_uri() -> str | None:
    """The tracking server that the user named, or None for the embedded store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def embedded_uri() -> str:
    """The embedded database as SQLAlchemy names it."""
    return sqlite_uri(_database())


def store_exists() -> bool:
    """Whether there is anything to read; asks no server, and imports nothing."""
    return server_uri() is not None or _database().is_file()


def create_embedded() -> None:
    """The embedded database, if it is not there yet.

    Made under another name and renamed: a process killed while MLflow migrates an empty database
    to today's schema would leave one that no later MLflow can open.
    """
    database = _database()
    if database.is_file():
        return
    with exclusive():
        if database.is_file():
            return
        part = database.with_suffix(".part")
        for leaving in database.parent.glob(part.name + "*"):  # with SQLite's own journal
            leaving.unlink()
        prepare_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with translated(str(part)):
            store: Any = SqlAlchemyStore(sqlite_uri(part), artifact_root().as_uri())
            store.engine.dispose()
        part.rename(database)


def open_client() -> Any:
    """An `MlflowClient` on the server or on the embedded database, which must be there."""
    uri = server_uri()
    if uri is None:
        _check_database()
        uri = embedded_uri()
    prepare_mlflow()
    from mlflow.tracking import MlflowClient

    with translated(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def prepare_mlflow() -> None:
    """Import MLflow without its chatter and without its telemetry."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import mlflow  # noqa: F401  # its import sets the levels that are overruled here

    for name in ("mlflow", "alembic"):
        # It logs with a traceback what it then raises; what it raises is told below.
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def exclusive() -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies.

    Not reentrant. SQLite alone is not enough: MLflow reads the highest number and then writes the
    next, and gives up when others were quicker three times.
    """
    path = embedded_folder() / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise StoreUnavailable(
            f"{path.parent} cannot be written ({error.strerror}); set MINIML_HOME elsewhere."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """MLflow's exceptions as ours: `NotFound`, `NotAllowed`, `StoreUnavailable`, and a full disk as `OSError`."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # MLflow wraps it, except where it moves artifacts

    known: tuple[type[Exception], ...] = (MlflowException, RequestException, *_database_errors())
    try:
        yield
    except known as error:
        if getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise NotFound(str(error)) from error
        if "database or disk is full" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), uri) from error
        raise _in_our_words(error, uri) from error


def _in_our_words(error: Exception, uri: str) -> RegistryError:
    """One sentence, which never holds a password."""
    place = without_password(uri)
    said = without_password(str(error)).strip().partition("\n")[0].rstrip(".")
    status = _status(error)
    if status in _REFUSALS and _is_of_the_bucket(error):
        return StoreUnavailable(
            f"The registry at {place} is not let into its bucket; "
            "who runs it has to mend the credentials there."
        )
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAllowed(
            f"The registry at {place} does not know this user and password; check "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if status == HTTPStatus.FORBIDDEN and "Host header" in said:
        return StoreUnavailable(
            f"The server at {place} does not take that name for its own; start it with the name in "
            "MLFLOW_SERVER_ALLOWED_HOSTS, or use one that it takes."
        )
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowed(
            f"The registry at {place} does not let {_who()} do this ({said}); "
            "ask who runs it (miniml registry user add)."
        )
    advice = ""
    if _SERVERS_FAULT.search(said):
        advice = "; its own log says why"
    elif server_uri() is not None:
        advice = "; check MLFLOW_TRACKING_URI"
    return StoreUnavailable(f"The registry at {place} does not work ({said}){advice}.")


def _is_of_the_bucket(error: Any) -> bool:
    """Whether a refusal is one that MLflow passes on, as JSON; its own are plain text."""
    response = getattr(error, "response", None)
    return response is not None and "json" in response.headers.get("content-type", "")


def _status(error: Any) -> int | None:
    """The HTTP status behind an error of MLflow or requests; None where there is none."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    status = getattr(error, "get_http_status_code", None)
    return None if status is None else int(status())


def _who() -> str:
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or "who asks"


def without_password(text: str) -> str:
    """*text* with what stands before the @ of its URLs left out."""
    return _CREDENTIALS.sub("//", text)


def _database_errors() -> tuple[type[Exception], ...]:
    """SQLAlchemy's; none where only MLflow's client is installed, which knows no databases."""
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return ()
    return (SQLAlchemyError,)


@contextmanager
def unless_there_already() -> Iterator[None]:
    """Somebody else may make the same thing at the same time; then it is there, which is enough."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def until_not_beaten(write: Callable[[], Any]) -> Any:
    """The result of *write*, done again when another client of the server wrote the same row first.

    MLflow reads and then inserts. Who is second gets the database's IntegrityError, or is given up
    after three times, and in both cases nothing was written. Each time somebody else got through,
    so there is no need to wait.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(_ATTEMPTS - 1):
        try:
            return write()
        except MlflowException as error:
            if "IntegrityError" not in str(error) and "Giving up after" not in str(error):
                raise
    return write()


def _database() -> Path:
    return embedded_folder() / "mlflow.db"


def sqlite_uri(path: Path) -> str:
    """A database as SQLAlchemy names it. Raises `StoreUnavailable` for a path that MLflow misreads."""
    if "%" in str(path) or "?" in str(path):  # MLflow reads them as parts of a URL, here and there
        raise StoreUnavailable(f"{path} has a % or ? in it; set MINIML_HOME to a path without.")
    return f"sqlite:///{path}"


def _check_database() -> None:
    """Refuse a damaged file at once: MLflow would try ten times, for a minute and a half."""
    try:
        with closing(sqlite3.connect(_database())) as connection:
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"{_database()} cannot be read ({error}); move it away to begin a new registry."
        ) from error
