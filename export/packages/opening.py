"""From a reference to an opened package, and the golden texts it is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from registry import store
from registry.artifact import SIGNATURE
from serving.errors import PackageError
from serving.package import GOLDEN, GoldenAnswer, Package, open_package


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPackage:
    """A package whose every byte was verified, and how it was found."""

    reference: str
    package: Package

    @property
    def signed(self) -> bool:
        """Whether there is a signature; not whether it is a good one."""
        return (self.package.folder / SIGNATURE).is_file()

    def document(self) -> dict[str, object]:
        """What names it."""
        return {
            "reference": self.reference,
            "folder": str(self.package.folder),
            "digest": self.package.digest,
            "signed": self.signed,
        }


def open_reference(reference: str) -> OpenedPackage:
    """Raises `RegistryError` or `PackageError` with the name of the file that is wrong."""
    version = store.resolve(reference, kind="package")
    package = open_package(store.fetch(version))
    return OpenedPackage(reference=version.reference, package=package)


def golden_answers(package: Package) -> list[GoldenAnswer]:
    """At least one. Raises `PackageError`."""
    try:
        golden = package.golden()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(
            f"{package.folder / GOLDEN} cannot be read ({error}); export the package again."
        ) from error
    if not golden:
        raise PackageError(f"{package.folder / GOLDEN} is empty; export the package again.")
    return golden
