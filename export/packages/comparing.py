"""`miniml package diff`: what two packages say of themselves, and whether they answer alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group

from export.package_options import DiffOptions
from export.packages.opening import OpenedPackage, golden_answers, open_reference
from export.packages.showing import (
    Headlines,
    facts,
    headlines,
    headlines_table,
    table,
    weight,
)
from registry.artifact import FileEntry
from serving.engine import Engine, Prediction
from serving.package import PackageConfig

Sides = dict[str, tuple[Any, Any]]  # name -> value on the left, value on the right


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How alike two engines answer *texts* texts. same_labels: texts given exactly the same ones."""

    texts: int
    same_labels: int
    max_probability_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageDiff:
    """config, lineage, files: only what differs, None on a side that lacks it.

    agreement: over the golden texts of both; None when *not_compared* says why not.
    """

    left: OpenedPackage
    right: OpenedPackage
    config: Sides
    lineage: Sides
    files: Sides
    labels_added: tuple[str, ...]
    labels_removed: tuple[str, ...]
    agreement: Agreement | None
    not_compared: str | None

    @property
    def empty(self) -> bool:
        """Whether both are the same package; signatures do not count."""
        return self.left.package.digest == self.right.package.digest

    def document(self) -> dict[str, object]:
        """Pairs are [left, right]."""
        return {
            "left": self.left.document(),
            "right": self.right.document(),
            "empty": self.empty,
            "config": self.config,
            "lineage": self.lineage,
            "files": {
                name: tuple(entry and asdict(entry) for entry in sides)
                for name, sides in self.files.items()
            },
            "labels_added": list(self.labels_added),
            "labels_removed": list(self.labels_removed),
            "gates": self._gates(),
            "answers": None if self.agreement is None else asdict(self.agreement),
            "not_compared": self.not_compared,
        }

    def __rich__(self) -> Group:
        """Both names, what differs, the gates side by side, the answers."""
        changed = [*self.config.items(), *self.lineage.items(), *self.files.items()]
        rows = ((name, *map(_shown, sides)) for name, sides in changed)
        return Group(
            facts((side, f"{o.reference} ({o.package.digest[:12]})") for side, o in self._sides()),
            table(("differs", "left", "right"), rows) if changed else "The same package.",
            headlines_table(self._gates()),
            facts(self._answers()),
        )

    def _sides(self) -> tuple[tuple[str, OpenedPackage], ...]:
        return ("left", self.left), ("right", self.right)

    def _gates(self) -> dict[str, Headlines]:
        return {side: headlines(o.package.gates, "served") for side, o in self._sides()}

    def _answers(self) -> Iterator[tuple[str, object]]:
        if self.labels_added or self.labels_removed:
            yield "labels added", ", ".join(self.labels_added) or "none"
            yield "labels removed", ", ".join(self.labels_removed) or "none"
        if self.agreement is None:
            yield "answers", self.not_compared
        else:
            same, texts = self.agreement.same_labels, self.agreement.texts
            yield "same labels", f"{same} of {texts} golden texts of both"
            yield "probabilities", f"within {self.agreement.max_probability_difference:.2g}"


def diff_packages(options: DiffOptions) -> PackageDiff:
    """Answers are compared when both were asked the same thing: same labels, task, kind of input."""
    left, right = open_reference(options.left), open_reference(options.right)
    ours, theirs = left.package, right.package
    reason = _why_not(ours.config, theirs.config)
    config = _differing(asdict(ours.config), asdict(theirs.config))
    if set(ours.config.labels) != set(theirs.config.labels):
        del config["labels"]  # told as added and removed; here only another order of the same
    return PackageDiff(
        left=left,
        right=right,
        config=config,
        lineage=_differing(ours.manifest.lineage, theirs.manifest.lineage),
        files=_differing(ours.manifest.files, theirs.manifest.files),
        labels_added=tuple(x for x in theirs.config.labels if x not in ours.config.labels),
        labels_removed=tuple(x for x in ours.config.labels if x not in theirs.config.labels),
        agreement=None if reason else _compare_answers(left, right),
        not_compared=reason,
    )


def _why_not(left: PackageConfig, right: PackageConfig) -> str | None:
    if set(left.labels) != set(right.labels):
        return "The label sets differ, so answers are not compared."
    if (left.task, left.text_pair) != (right.task, right.text_pair):
        return "The tasks differ, so answers are not compared."
    return None


def _compare_answers(left: OpenedPackage, right: OpenedPackage) -> Agreement:
    """Both engines, each text alone, on the golden texts of either."""
    golden = [*golden_answers(left.package), *golden_answers(right.package)]
    asked = list(dict.fromkeys((answer.text, answer.text_pair) for answer in golden))
    texts, pairs = [text for text, _ in asked], [pair for _, pair in asked]
    ours, theirs = (list(Engine(opened.package).predict(texts, pairs)) for opened in (left, right))
    labels = right.package.config.labels
    order = [labels.index(label) for label in left.package.config.labels]
    change = np.abs(
        np.array([answer.scores for answer in ours])
        - np.array([answer.scores for answer in theirs])[:, order]
    )
    return Agreement(
        texts=len(asked),
        same_labels=sum(_given(a) == _given(b) for a, b in zip(ours, theirs, strict=True)),
        max_probability_difference=float(change.max()),
    )


def _given(answer: Prediction) -> set[str | None]:
    if answer.labels is None:
        return {answer.label}
    return {name for name, _ in answer.labels}


def _shown(value: object) -> str:
    if isinstance(value, FileEntry):
        return f"{weight(value.bytes)} ({value.sha256[:8]})"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> Sides:
    return {
        name: (left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    }
