"""`miniml registry`: what each command does, and how its result is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from registry import store
from registry.gc import GcResult
from registry.options import (
    AliasOptions,
    GcOptions,
    ListVersionsOptions,
    RegistryUiOptions,
    ShowVersionOptions,
    VerifyVersionOptions,
)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A result. told: for people; content: the JSON document."""

    told: RenderableType
    content: Any

    def document(self) -> Any:
        """JSON-able."""
        return self.content

    def __rich__(self) -> RenderableType:
        return self.told


def list_(options: ListVersionsOptions) -> CommandResult:
    """All versions, newest first."""
    versions = store.list_versions(name=options.name)
    return CommandResult(
        store.versions_table(versions), [version.document() for version in versions]
    )


def show_(options: ShowVersionOptions) -> CommandResult:
    """One version and what it was made from. Raises `RegistryError`."""
    version = store.resolve(options.reference, kind=options.kind)
    return CommandResult(store.lineage_tree(version), version.document())


def alias_(options: AliasOptions) -> CommandResult:
    """The version that the alias names from now on. Raises `RegistryError`."""
    version = store.set_alias(options.reference, options.alias, kind=options.kind)
    told = f"{version.name}@{options.alias} is {version.reference} ({version.digest[:12]})"
    return CommandResult(told, version.document())


def verify_(options: VerifyVersionOptions) -> CommandResult:
    """The version, every byte of which was hashed. Raises `RegistryError`."""
    version = store.verify_version(options.reference, kind=options.kind)
    return CommandResult(
        f"{version.reference} is intact ({version.digest[:12]})", version.document()
    )


def gc_(options: GcOptions) -> GcResult:
    """What was removed, or would be. Raises `RegistryError`."""
    return store.gc(keep=options.keep, dry_run=options.dry_run)


def ui_(options: RegistryUiOptions) -> None:
    """Show MLflow's page until interrupted. Raises `RegistryError`."""
    store.ui(host=options.host, port=options.port)
