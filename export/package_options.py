"""What `miniml package` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

_WHICH = {"argument": "PACKAGE", "help": "NAME, NAME@alias, NAME/3, a folder, ..."}


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """What a package is: labels, precision, files, gates, graph, cost, lineage.

    [bold]miniml package inspect reviews@champion[/]
    """

    package: str = field(default="latest", metadata=_WHICH)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Prove a package: its bytes, its signature, and its golden answers on this machine.

    [bold]miniml package verify reviews@champion --public-key key.pub.pem[/]
    """

    package: str = field(default="latest", metadata=_WHICH)
    public_key: Path | None = field(
        default=None, metadata={"help": "PEM file; the package must be signed with its other half."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """What differs between two packages, and how often they answer alike.

    [bold]miniml package diff reviews@champion reviews@latest[/]
    """

    left: str = field(metadata={**_WHICH, "argument": "LEFT"})
    right: str = field(metadata={**_WHICH, "argument": "RIGHT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageBenchOptions:
    """Measure a package's engine on this machine, beside the numbers it was exported with.

    [bold]miniml package bench reviews@champion[/]
    """

    package: str = field(default="latest", metadata=_WHICH)
    budget_s: float = field(
        default=20.0, metadata={"help": "Measure for about so long; each cell once at least."}
    )
