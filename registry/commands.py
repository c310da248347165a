"""`miniml registry`: what each command does, and how its result is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from registry import store, users
from registry.artifact import read_manifest
from registry.errors import ArtifactExists
from registry.gc import GcResult
from registry.listening import Address
from registry.options import (
    AddUserOptions,
    AliasOptions,
    FetchVersionOptions,
    GcOptions,
    ListUsersOptions,
    ListVersionsOptions,
    PushOptions,
    RegistryUiOptions,
    RemoveUserOptions,
    ServeRegistryOptions,
    ShowVersionOptions,
    VerifyVersionOptions,
)
from registry.transfer import copy_in


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


def push_(options: PushOptions) -> CommandResult:
    """The version that the folder has become. Raises `RegistryError`."""
    version = store.publish(options.folder, name=options.name, alias=options.alias)
    named = f" (@{options.alias})" if options.alias else ""
    told = f"{version.kind} {version.reference}{named} is published ({version.digest[:12]})"
    return CommandResult(told, version.document())


def fetch_(options: FetchVersionOptions) -> CommandResult:
    """The version, and the folder that holds a copy now. Raises `RegistryError`."""
    output = options.output.absolute()
    if output.exists():  # before a download, not after
        raise ArtifactExists(f"{output} is there already; remove it or choose another --output.")
    version = store.resolve(options.reference, kind=options.kind)
    folder = store.fetch(version)
    copy_in(folder, output, read_manifest(folder))
    told = f"{version.kind} {version.reference} is in {output} ({version.digest[:12]})"
    return CommandResult(told, {"folder": str(output), **version.document()})


def ui_(options: RegistryUiOptions) -> None:
    """Show MLflow's page until interrupted. Raises `RegistryError`."""
    store.ui(host=options.host, port=options.port)


def serve_(options: ServeRegistryOptions) -> None:
    """Serve the registry until interrupted. Raises `RegistryError`."""
    address = Address(
        host=options.host,
        port=options.port,
        name=options.name,
        certificate=options.certificate,
    )
    store.serve(address, artifacts=options.artifacts, auth=options.auth)


def add_user_(options: AddUserOptions) -> CommandResult:
    """The new user with the password. Raises `RegistryError`."""
    made = users.add_user(options.name, may=options.may, replace=options.replace)
    lines = (
        f"{made.user.name} may {made.user.may}; the password is shown this once:",
        f"export MLFLOW_TRACKING_URI={made.uri}",
        f"export MLFLOW_TRACKING_USERNAME={made.user.name}",
        f"export MLFLOW_TRACKING_PASSWORD={made.password}",
    )
    content = {"password": made.password, "uri": made.uri, **asdict(made.user)}
    return CommandResult(Text("\n".join(lines), no_wrap=True, overflow="ignore"), content)


def list_users_(_options: ListUsersOptions) -> CommandResult:
    """A line each. Raises `RegistryError`."""
    found = users.list_users()
    table = Table("User", "May")
    for user in found:
        table.add_row(user.name, user.may)
    return CommandResult(table, {"users": [asdict(user) for user in found]})


def remove_user_(options: RemoveUserOptions) -> CommandResult:
    """The name that lets nobody in any more. Raises `RegistryError`."""
    users.remove_user(options.name)
    return CommandResult(f"{options.name} is let in no more.", {"removed": options.name})
