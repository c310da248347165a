"""A published version: the noun that resolving gives, and its table. It knows no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from registry.artifact import Kind

SHORT_DIGEST = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable version; only its aliases can move.

    number: from 1 on within (kind, name); 0 for a sealed folder that was never published.
    digest: of the manifest, which names every byte. uri: where the sealed folder lies, a plain path
    on this machine. created_at: ISO 8601, UTC, "" when unknown. recipe: hex digest of all that determined it, or "".
    """

    kind: Kind
    name: str
    number: int
    digest: str
    uri: str
    run_id: str
    created_at: str
    aliases: tuple[str, ...]
    lineage: Mapping[str, str]
    metrics: Mapping[str, float]
    recipe: str

    @property
    def reference(self) -> str:
        """`reviews/3`, which names this version for ever; the path or URI when not published."""
        return f"{self.name}/{self.number}" if self.number else self.uri

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {"reference": self.reference, **asdict(self)}


def newest_first(versions: Iterable[Version]) -> list[Version]:
    """By time of creation, over all names."""
    return sorted(versions, key=lambda version: (version.created_at, version.number), reverse=True)


def newest_of_name(versions: Iterable[Version]) -> list[Version]:
    """Versions of one kind and name, newest first: numbers cannot be wrong, as clocks can."""
    return sorted(versions, key=lambda version: version.number, reverse=True)


def versions_table(versions: Iterable[Version]) -> Table:
    """A line for each, in the order given."""
    table = Table("Version", "Kind", "Aliases", "Created (UTC)", "Made from", "Digest")
    for version in versions:
        parents = [
            version.lineage[key] for key in ("checkpoint", "dataset") if key in version.lineage
        ]
        table.add_row(
            version.reference,
            version.kind,
            ", ".join(version.aliases),
            version.created_at[:19].replace("T", " "),
            (parents or [version.lineage.get("source", "")])[0],
            version.digest[:SHORT_DIGEST],
        )
    return table
