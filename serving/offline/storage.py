"""Files here and in object stores, by fsspec: list, look at, read, and put whole or not at all.

An address is a path of this machine or a URL (`s3://bucket/key`). Knows nothing of what is inside.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.core import OpenFile, strip_protocol

from serving.offline.errors import OfflineError, OutputFailed, UnreadableInput

_STAGING = ".staging"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_local(address: str) -> bool:
    """Whether it lies on this machine."""
    return "://" not in address


def absolute(address: str) -> str:
    """As it is named for ever; without a slash at its end."""
    if is_local(address):
        return str(Path(address).expanduser().absolute())
    return address.rstrip("/")


def find(address: str) -> list[str]:
    """Files that *address* (a file, a folder, a pattern) means, in order of their names.

    Of a folder those in it, hidden ones (`.`, `_`) left out. Raises `UnreadableInput`.
    """
    with _reading(address):
        files, path = _system(address), _path(address)
        if files.isfile(path):
            return [address]
        if files.isdir(path):
            entries = files.ls(path, detail=True)
            found = [entry["name"] for entry in entries if entry["type"] == "file"]
            found = [name for name in found if Path(name).name[:1] not in "._"]
        else:
            found = [name for name in files.glob(path) if files.isfile(name)]
        return [_address(files, name) for name in sorted(found)]


def look(address: str) -> tuple[int, str]:
    """Bytes of a file, and a mark that changes when its content does: an ETag, or a time."""
    with _reading(address):
        files = _system(address)
        files.invalidate_cache()
        info = files.info(_path(address))
    marks = (info.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified"))
    mark = next((mark for mark in marks if mark), "")
    return int(info["size"]), str(mark).strip('"')


@contextmanager
def reading(address: str) -> Iterator[IO[bytes]]:
    """The file, to be read and sought in; what ends in .gz is unpacked. Raises `UnreadableInput`."""
    packed = "gzip" if address.endswith(".gz") else None
    with _reading(address):
        files = _system(address)
        with OpenFile(files, _path(address), "rb", compression=packed) as file:
            yield file


def names_in(folder: str) -> list[str]:
    """Names of the files in *folder*, hidden ones left out; none when it is not there."""
    with _writing(folder):
        files = _system(folder)
        files.invalidate_cache()
        try:
            entries = files.ls(_path(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [Path(entry["name"]).name for entry in entries if entry["type"] == "file"]
        return sorted(name for name in names if not name.startswith("."))


def get(address: str) -> bytes:
    """The whole content of what was put."""
    with _writing(address):
        content: bytes = _system(address).cat_file(_path(address))
        return content


def put(address: str, content: bytes) -> None:
    """All of *content* at *address*, or nothing; on this machine flushed and renamed.

    Raises `OutputFailed`, and OSError when the disk is full.
    """
    with _writing(address):
        if not is_local(address):
            _system(address).pipe_file(_path(address), content)
            return
        target = Path(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{os.getpid()}{_STAGING}")
        try:
            with staging.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staging.replace(target)
        except BaseException:
            staging.unlink(missing_ok=True)
            raise
        _flush_names(target.parent)


def remove_leavings(folder: str) -> None:
    """What a killed writer left beside its target."""
    if is_local(folder):
        for path in Path(folder).glob(f".*{_STAGING}"):
            path.unlink(missing_ok=True)


def _flush_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=8)
def _opened(protocol: str, _environment: str) -> Any:
    return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False)


def _system(address: str) -> Any:
    """The file system; one a process, unless the endpoint or the credentials change."""
    protocol = "file" if is_local(address) else address.partition("://")[0]
    keys = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")
    try:
        return _opened(protocol, repr([os.environ.get(key) for key in keys]))
    except (ImportError, ValueError) as error:
        raise OfflineError(f"{address} is out of reach ({_first_line(error)}).") from error


def _path(address: str) -> str:
    path: str = address if is_local(address) else strip_protocol(address)
    return path


def _address(files: Any, name: str) -> str:
    address: str = name if "file" in files.protocol else files.unstrip_protocol(name)
    return address


@contextmanager
def _reading(address: str) -> Iterator[None]:
    """Errors of the file system come out as ours; those of who reads are let through."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableInput(f"There is no file {address}; check the path.") from error
    except EOFError as error:
        raise UnreadableInput(f"{address} is not a whole file ({error}).") from error
    except (OSError, zlib.error) as error:
        raise UnreadableInput(f"{address} cannot be read ({_first_line(error)}).") from error
    except Exception as error:
        if _of_the_store(error):
            raise UnreadableInput(f"{address} cannot be reached ({error}).") from error
        raise


@contextmanager
def _writing(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise OutputFailed(f"{address} cannot be used ({_first_line(error)}).") from error
    except Exception as error:
        if _of_the_store(error):
            raise OutputFailed(f"{address} cannot be reached ({error}).") from error
        raise


def _of_the_store(error: Exception) -> bool:
    """Whether S3's client raised it: its classes share no base with OSError."""
    return type(error).__module__.startswith("botocore.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
