"""What `miniml registry` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from registry.artifact import Kind

_REFERENCE = {"argument": "REFERENCE", "help": "NAME, NAME@alias, NAME/3, a folder, ..."}
_KIND = {"help": "What the reference names."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListVersionsOptions:
    """All versions, newest first."""

    name: str | None = field(default=None, metadata={"help": "Only this name."})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowVersionOptions:
    """One version with its lineage, from the package back to the rows, and where each lies."""

    reference: str = field(default="latest", metadata=_REFERENCE)
    kind: Kind = field(default="package", metadata=_KIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasOptions:
    """Point an alias at a version: [bold]miniml registry alias reviews/3 champion[/]."""

    reference: str = field(metadata=_REFERENCE)
    alias: str = field(metadata={"argument": "ALIAS", "help": "Alias, for instance champion."})
    kind: Kind = field(default="package", metadata=_KIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyVersionOptions:
    """Hash every file of a version against its manifest."""

    reference: str = field(default="latest", metadata=_REFERENCE)
    kind: Kind = field(default="package", metadata=_KIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """Remove old versions that no alias names and nothing kept was made from."""

    keep: int = field(default=3, metadata={"help": "Newest versions kept of each name."})
    dry_run: bool = field(default=False, metadata={"help": "Only say what would go."})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryUiOptions:
    """Open MLflow's own page on the registry, for this machine alone, until interrupted."""

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int = field(default=5000, metadata={"help": "Port to listen on."})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeRegistryOptions:
    """Be the registry of a team: MLflow's server on what is published here, until interrupted.

    Beyond this machine it asks for a name and a password (`miniml registry user add`).

    [bold]miniml registry serve --host 0.0.0.0 --artifacts s3://models/hub[/]
    """

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int = field(default=5000, metadata={"help": "Port to listen on."})
    name: str | None = field(
        default=None,
        metadata={"help": "What others call this machine, or the https:// address in front of it."},
    )
    certificate: Path | None = field(
        default=None, metadata={"help": "PEM file with a certificate and its key: speak TLS."}
    )
    artifacts: str | None = field(
        default=None,
        metadata={"help": "s3://bucket/prefix for what others publish; default: this home."},
    )
    auth: bool = field(default=False, metadata={"help": "Ask for passwords on 127.0.0.1, too."})


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """Publish a sealed folder: a dataset, a checkpoint or a package, as a new version.

    [bold]miniml registry push artifacts/package --name reviews --alias candidate[/]
    """

    folder: Path = field(metadata={"argument": "FOLDER", "help": "A sealed folder."})
    name: str = field(metadata={"help": "Name to publish it under."})
    alias: str | None = field(default=None, metadata={"help": "Alias to point at it."})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchVersionOptions:
    """Bring a version out, verified: all of it in a new folder, or nothing.

    [bold]miniml registry fetch reviews@champion --output reviews[/]
    """

    reference: str = field(metadata=_REFERENCE)
    output: Path = field(metadata={"help": "New folder for it."})
    kind: Kind = field(default="package", metadata=_KIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddUserOptions:
    """Let somebody in at the hub of MLFLOW_TRACKING_URI; the password is shown once.

    [bold]miniml registry user add anna --may publish[/]
    """

    name: str = field(metadata={"argument": "NAME", "help": "Who it is."})
    may: Literal["read", "publish", "manage"] = field(
        default="read",
        metadata={"help": "Fetch; also publish and set aliases; also remove, and add users."},
    )
    replace: bool = field(
        default=False, metadata={"help": "Give a new password and these rights to who is there."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListUsersOptions:
    """Who may ask the hub, and what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveUserOptions:
    """Let somebody in no more; what they published stays."""

    name: str = field(metadata={"argument": "NAME", "help": "Who it is."})
