"""From a version back to what it was made from, by digests. Pure: versions in, versions out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.tree import Tree

from registry.artifact import Kind
from registry.version import SHORT_DIGEST, Version, newest_first

_ANCESTRY: tuple[Kind, ...] = ("checkpoint", "dataset")  # nearest first, seen from a package
_LEAVES = ("base_model", "source")  # inputs that are no artifacts of ours


def ancestors(version: Version, known: Iterable[Version]) -> list[Version]:
    """*version*, then its checkpoint, then its dataset, as far as *known* has them.

    A digest names content, so the same content may be known under several versions: the one that
    the lineage names is taken, else the newest. A missing link is stepped over, because a package
    carries its checkpoint's lineage too.
    """
    known = newest_first(known)
    chain = [version]
    for kind in _ANCESTRY:
        lineage = chain[-1].lineage
        found = [
            other
            for other in known
            if other.kind == kind and other.digest == lineage.get(f"{kind}_digest")
        ]
        if found:
            named = [other for other in found if other.reference == lineage.get(kind)]
            chain.append((named or found)[0])
    return chain


def lineage_of(chain: Sequence[Version]) -> Tree:
    """A tree of *chain* as `ancestors` gives it; what is not known any more is named by digest."""
    root = Tree(_label(chain[0]))
    branch = root
    lineage = chain[0].lineage
    by_kind = {version.kind: version for version in chain[1:]}
    for kind in _ANCESTRY:
        if parent := by_kind.get(kind):
            _add_leaves(branch, own=lineage, parents=parent.lineage)
            branch = branch.add(_label(parent))
            lineage = parent.lineage
        elif digest := lineage.get(f"{kind}_digest"):
            name = escape(lineage.get(kind, "?"))
            branch.add(f"{kind} {name}  {digest[:SHORT_DIGEST]}  [yellow]not in this registry[/]")
    _add_leaves(branch, own=lineage, parents={})
    return root


def _add_leaves(branch: Tree, *, own: Mapping[str, str], parents: Mapping[str, str]) -> None:
    """Inputs such as the base model, on the level that took them: not where a parent has them."""
    for key in _LEAVES:
        if key in own and key not in parents:
            digest = own.get(f"{key}_sha256", "")[:SHORT_DIGEST]
            branch.add(f"{key.replace('_', ' ')} {escape(own[key])}  {digest}".rstrip())


def _label(version: Version) -> str:
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    return (
        f"[bold]{version.kind} {escape(version.reference)}[/][cyan]{aliases}[/]  "
        f"{version.digest[:SHORT_DIGEST]}  {version.created_at[:19]}\n[dim]{escape(version.uri)}[/]"
    )
