"""Reading rows: any file format, local or on S3, or a hub dataset, one row at a time.

Yields plain dictionaries and knows nothing of texts, labels or splits beyond the name of the file a
row came from. Nothing is held in memory but the row at hand.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from training.errors import SourceError
from training.formats import READERS, ReadOptions

Row = dict[str, Any]
Split = Literal["train", "test"]
# A file's stem says which split it is; validation files are test files only when there are no others.
_SPLIT_NAMES: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train", "training": "train", "test": "test", "eval": "test",
    "dev": "validation", "valid": "validation", "validation": "validation", "trial": "validation",
}  # fmt: skip
_CHUNK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file or one split of a hub dataset. split: None when it is to be decided here.

    names: label column -> class names, where the source itself knows them.
    """

    address: str
    split: Split | None
    suffix: str
    hub: Any = None
    names: dict[str, list[str]] | None = None


def find_sources(addresses: tuple[str, ...]) -> list[Source]:
    """What *addresses* (files, folders, globs, s3://, or one hub id) mean, test files last.

    Raises `SourceError` with one sentence.
    """
    files: list[str] = []
    for address in addresses:
        if address.startswith("s3://"):
            files.extend(_s3_files(address))
        elif found := _local_files(address):
            files.extend(found)
        elif _looks_like_hub_id(address) and len(addresses) == 1:
            return _hub_sources(address)
        else:
            raise SourceError(f"There is no file or folder {address}; check the path.")
    named = {file: _split_name(file) for file in files}
    known = set(named.values())
    # One split per file only when both sides are there; a lone "train.csv" is just a name.
    given = "train" in known and bool(known & {"test", "validation"}) and None not in known
    has_test = "test" in known
    return [
        Source(
            address=file,
            split=_split_of(named[file], has_test=has_test) if given else None,
            suffix=_suffix(file),
        )
        for file in files
    ]


def read_rows(source: Source, options: ReadOptions) -> Iterator[Row]:
    """The rows of *source*, in order, with progress on stderr. Raises `SourceError`."""
    if source.hub is not None:
        yield from source.hub
        return
    reader = READERS.get(source.suffix)
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise SourceError(
            f"{source.address}: {source.suffix or 'no suffix'} is not one of {known}."
        )
    try:
        with _open(source.address) as raw, _progress() as progress:
            size = raw.seek(0, 2)
            raw.seek(0)
            task = progress.add_task(Path(source.address).name, total=size)
            with progress.wrap_file(cast("BinaryIO", raw), task_id=task, total=size) as counted:
                zipped = source.address.endswith(".gz")
                file: Any = gzip.GzipFile(fileobj=counted) if zipped else counted
                yield from reader(file, source.address, options)
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{source.address} is not {options.encoding}: byte 0x{error.object[error.start]:02x}"
            f" cannot be read; say which it is with --encoding (latin-1, cp1252, utf-16, ...)."
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise SourceError(f"{source.address} is not a whole gzip file ({error}).") from error


def content_sha256(sources: list[Source]) -> str:
    """Hex sha256 over the content of all sources, in order; of a hub dataset, its fingerprint."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.split}\n".encode())
        if source.hub is not None:
            digest.update(source.hub._fingerprint.encode())  # noqa: SLF001 - its public name for content
            continue
        with _open(source.address) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _open(address: str) -> IO[bytes]:
    try:
        if address.startswith("s3://"):
            import fsspec

            opened: IO[bytes] = fsspec.open(address, "rb").open()
            return opened
        return Path(address).open("rb")
    except OSError as error:
        raise SourceError(f"{address} cannot be read: {error.strerror or error}.") from error


def _progress() -> Progress:
    columns = (TextColumn("Reading {task.description}"), BarColumn(), DownloadColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _local_files(address: str) -> list[str]:
    path = Path(address).expanduser()
    if path.is_dir():
        found = sorted(str(p) for p in path.iterdir() if _suffix(str(p)) in READERS)
        if not found:
            raise SourceError(f"{address} holds no file that can be read.")
        splits = [file for file in found if _split_name(file)]
        if any(_split_name(file) == "train" for file in splits) and len(splits) < len(found):
            others = ", ".join(Path(file).name for file in found if file not in splits)
            _log.info("Reading the splits of %s, and not %s", address, others)
            return splits
        return found
    if path.is_file():
        return [str(path)]
    return sorted(glob.glob(str(path))) if glob.has_magic(address) else []  # noqa: PTH207 - a whole pattern, maybe absolute


def _s3_files(address: str) -> list[str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        if system.isfile(path):
            return [address]
        found = [f"s3://{name}" for name in sorted(system.glob(path) + system.glob(f"{path}/*"))]
    except Exception as error:  # botocore's classes are many and share no base with OSError
        raise SourceError(f"{address} cannot be reached ({error}).") from error
    files = [name for name in found if _suffix(name) in READERS]
    if not files:
        raise SourceError(f"There is nothing to read at {address}; check the address.")
    return files


def _hub_sources(name: str) -> list[Source]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub's, datasets' and the network's own classes
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise SourceError(
            f"{name} is neither a file here nor a dataset in reach on the hub ({reason.rstrip('.')})."
        ) from error
    known = {_SPLIT_NAMES.get(split) for split in splits}
    given = "train" in known and bool(known & {"test", "validation"})
    return [
        Source(
            address=f"{name}:{split}",
            split=_split_of(_SPLIT_NAMES.get(split), has_test="test" in known) if given else None,
            suffix="",
            hub=rows,
            names={
                column: list(feature.names)
                for column, feature in rows.features.items()
                if hasattr(feature, "names")
            },
        )
        for split, rows in splits.items()
        if not given or split in _SPLIT_NAMES
    ]


def _looks_like_hub_id(address: str) -> bool:
    return not Path(address).suffix and address.count("/") <= 1 and address[:1] not in "./~"


def _split_name(address: str) -> Literal["train", "validation", "test"] | None:
    stem = Path(address).name.lower().split(".")[0].replace("-", "_")
    for part in (stem, *stem.split("_")):
        if part in _SPLIT_NAMES:
            return _SPLIT_NAMES[part]
    return None


def _split_of(name: str | None, *, has_test: bool) -> Split:
    return "test" if name == "test" or (name == "validation" and not has_test) else "train"


def _suffix(address: str) -> str:
    return Path(address.removesuffix(".gz")).suffix.lower()
