"""From a reference to a verified local folder: serving's only use of the registry."""

from __future__ import annotations

from pathlib import Path

from serving.package import open_package


def locate(reference: str) -> tuple[Path, str]:
    """The folder and the digest that *reference* names now.

    A path needs no registry, so none is imported. Raises `PackageError` or a registry error with
    one sentence.
    """
    if Path(reference).is_dir():
        package = open_package(Path(reference))
        return package.folder, package.digest
    from registry import store

    version = store.resolve(reference, kind="package")
    return store.fetch(version), version.digest
