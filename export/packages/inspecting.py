"""`miniml package inspect`: what a package is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from export.package_options import InspectOptions
from export.packages.graph import GraphFacts, read_graph
from export.packages.opening import OpenedPackage, open_reference
from export.packages.showing import facts, headlines, headlines_table, table, weight
from serving.package import CostGrid, PackageConfig

_LABELS_SHOWN = 8
_OPERATORS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A package and what its graph is made of."""

    opened: OpenedPackage
    graph: GraphFacts

    def document(self) -> dict[str, object]:
        """Everything that is shown, labels and operators uncut."""
        package = self.opened.package
        files = package.manifest.files
        return {
            **self.opened.document(),
            "config": asdict(package.config),
            "files": {name: entry.bytes for name, entry in files.items()},
            "total_bytes": package.manifest.total_bytes,
            "lineage": dict(package.manifest.lineage),
            "gates": {name: headlines(package.gates, name) for name in ("fp32", "served")},
            "graph": {**asdict(self.graph), "nodes": self.graph.nodes},
            "cost": asdict(package.cost),
        }

    def __rich__(self) -> Group:
        """Facts, then a table each for files, gates and cost."""
        package, files = self.opened.package, self.opened.package.manifest.files
        total = ("all", weight(package.manifest.total_bytes))
        sizes = ((name, weight(entry.bytes)) for name, entry in files.items())
        gates = {name: headlines(package.gates, name) for name in ("fp32", "served")}
        return Group(
            facts(self._facts()),
            table(("file", "size"), (*sizes, total)),
            headlines_table(gates),
            _cost_table(package.cost),
            Text(f"one lane of {package.cost.threads} thread(s) on {package.cost.machine}"),
        )

    def _facts(self) -> Iterator[tuple[str, object]]:
        package, graph = self.opened.package, self.graph
        yield "package", self.opened.reference
        yield from _config_facts(package.config)
        operators = [f"{name} {count}" for name, count in graph.operators.items()]
        yield "graph", f"{graph.nodes} nodes: {_cut(operators, _OPERATORS_SHOWN)}"
        yield "opset", _pairs(graph.opsets)
        yield (
            "parameters",
            ", ".join(f"{dtype} {weight(b)}" for dtype, b in graph.parameter_bytes.items()),
        )
        yield "made from", _pairs(package.manifest.lineage, "\n") or "(not said)"
        yield "signed", "yes" if self.opened.signed else "no"
        yield "digest", package.digest
        yield "folder", package.folder


def inspect_package(options: InspectOptions) -> Inspection:
    """Raises `RegistryError`, `PackageError` or `GraphUnreadable`, with the file's name."""
    opened = open_reference(options.package)
    return Inspection(opened=opened, graph=read_graph(opened.package.model_path))


def _config_facts(config: PackageConfig) -> Iterator[tuple[str, object]]:
    kind = f"{config.task}, {'pairs of texts' if config.text_pair else 'single texts'}"
    yield "name", f"{config.name}, from {config.base_model}"
    yield "task", kind
    yield "labels", f"{len(config.labels)}: {_cut(config.labels, _LABELS_SHOWN)}"
    yield "precision", config.precision
    given = _pairs(config.runtime_options)
    yield "runtime", f"{config.runtime} ({given})" if given else config.runtime
    if config.isa:
        yield "chosen for", ", ".join(config.isa)
    yield "reads", f"{config.max_length} tokens: {', '.join(config.inputs)}"
    if config.canonicalizer:
        yield "read as", f"{config.canonicalizer} makes them"
    yield "in a batch", "answers stay the same" if config.batch_invariant else "every text alone"


def _cost_table(cost: CostGrid) -> Table:
    titles = ("ms", *(f"{length} tokens" for length in cost.lengths))
    rows = zip(cost.batches, cost.ms, strict=True)
    return table(titles, ((f"{b} texts", *(f"{ms:.2f}" for ms in row)) for b, row in rows))


def _cut(items: Sequence[str], shown: int) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more


def _pairs(values: Mapping[str, Any], between: str = ", ") -> str:
    return between.join(f"{name} {value}" for name, value in values.items())
