"""From a reference to a verified local folder: serving's only use of the registry."""

from __future__ import annotations

from pathlib import Path

from serving.errors import PackageError
from serving.package import open_package


def locate(reference: str, *, digest: str | None = None) -> tuple[Path, str]:
    """The folder and the digest that *reference* names now.

    digest: refuse any other. A path needs no registry, so none is imported. Raises `PackageError`
    or a registry error with one sentence.
    """
    folder, found = _locate(reference)
    if digest is not None and found != digest:
        raise PackageError(
            f"{reference} is package {found[:12]}, not {digest[:12]} as was asked for;"
            " name the package that was meant, or its digest anew."
        )
    return folder, found


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
