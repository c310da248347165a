"""From a reference to a verified local folder: serving's only use of the registry."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from serving.apart import apart
from serving.errors import PackageError
from serving.package import open_package

FETCH_S = 1800.0  # a large package from a distant bucket


def locate(reference: str, *, digest: str | None = None) -> tuple[Path, str]:
    """The folder and the digest that *reference* names now.

    digest: refuse any other; a copy of it that was fetched before is taken without asking the
    registry, which may be away. A path needs no registry, so none is imported. Raises
    `PackageError` or a registry error with one sentence.
    """
    if digest is not None and (copy := _kept(reference, digest)) is not None:
        return copy, digest
    folder, found = _locate(reference)
    if digest is not None and found != digest:
        raise PackageError(
            f"{reference} is package {found[:12]}, not {digest[:12]} as was asked for;"
            " name the package that was meant, or its digest anew."
        )
    return folder, found


def _kept(reference: str, digest: str) -> Path | None:
    if Path(reference).is_dir():
        return None
    from registry import store

    return store.kept(digest, kind="package")


def _locate(reference: str) -> tuple[Path, str]:
    if Path(reference).is_dir():
        package = open_package(Path(reference))
        return package.folder, package.digest
    from registry import store

    version = store.resolve(reference, kind="package")
    return store.fetch(version), version.digest


def pin(reference: str) -> tuple[str, str]:
    """What names the package of *reference* for ever, `reviews/3` or a folder, and its digest.

    A folder or `s3://` place can be written anew: there only the digest tells. Raises as `locate`.
    """
    if Path(reference).is_dir():
        package = open_package(Path(reference))
        return str(package.folder), package.digest
    from registry import store

    version = store.resolve(reference, kind="package")
    return version.reference, version.digest


def locate_apart(reference: str, digest: str) -> Path:
    """As `locate`, in a process of its own where the registry is needed: MLflow would stay with this one.

    Raises `PackageError`.
    """
    if Path(reference).is_dir():
        return locate(reference, digest=digest)[0]
    try:
        work = partial(locate, reference, digest=digest)
        return apart(work, f"Finding {reference}", timeout_s=FETCH_S)[0]
    except Exception as error:
        if getattr(error, "exit_code", None) is None:
            raise
        told = " ".join(filter(None, (str(error), getattr(error, "hint", ""))))
        raise PackageError(told) from error


def point_alias(alias: str, reference: str) -> None:
    """Have *alias* name the package of *reference*, which is published. Raises registry errors."""
    from registry import store

    store.set_alias(reference, alias, kind="package")
