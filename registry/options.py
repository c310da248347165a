"""What `miniml registry` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Open MLflow's own page on the registry, until interrupted."""

    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int = field(default=5000, metadata={"help": "Port to listen on."})
