"""The label set: which names there are, in which order, and whether they can make a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.columns import ColumnPlan
from training.errors import LabelError

if TYPE_CHECKING:
    from training.arrow import CleanRows
    from training.splitting import Ints, SplitDecision

_MOST_LABELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """names: in the order of the logits. index: raw label id (order of appearance) -> place."""

    names: tuple[str, ...]
    index: tuple[int, ...]
    multi_label: bool

    @classmethod
    def of(cls, seen: Sequence[str], plan: ColumnPlan, wanted: str | None) -> Labels:
        """The label set for labels *seen* in the rows, in the order *wanted* or in a natural one.

        *wanted* is a comma-separated list or a file of lines. When the rows hold numbers 0..n-1 and
        n names are wanted, the names are theirs. Raises `LabelError`.
        """
        wanted_names = _wanted_names(wanted)
        if wanted_names and not set(seen) <= set(wanted_names):
            names, translated = _name_numbers(seen, wanted_names)
        else:
            universe = plan.label if plan.kind == "flags" else seen
            names = wanted_names or tuple(natural_order(universe))
            translated = tuple(seen)
        if len(names) > _MOST_LABELS:
            raise LabelError(
                f"{len(names)} different labels were found, e.g. {names[0]!r}; more than"
                f" {_MOST_LABELS} are hardly classes: choose another --label-column."
            )
        if len(names) < 2:  # noqa: PLR2004 - nothing to tell apart
            raise LabelError(
                f"There is only one class ({names[0]!r}); a classifier needs two."
                if names
                else "No row has any label; choose another --label-column."
            )
        place = {name: i for i, name in enumerate(names)}
        return cls(
            names=names,
            index=tuple(place[name] for name in translated),
            multi_label=plan.multi_label,
        )

    def count(self, clean: CleanRows, rows: Ints) -> dict[str, int]:
        """name -> how many of *rows* have it."""
        counts = np.bincount(
            np.asarray(self.index, dtype=np.int64)[clean.raw_labels(rows)],
            minlength=len(self.names),
        )
        return {name: int(n) for name, n in zip(self.names, counts, strict=True)}

    def check(self, clean: CleanRows, decision: SplitDecision) -> None:
        """Raise `LabelError` when the splits cannot make a classifier and its exam."""
        train, test = self.count(clean, decision.train), self.count(clean, decision.test)
        unseen = [name for name in self.names if test[name] and not train[name]]
        if unseen:
            raise LabelError(
                f"Label {unseen[0]!r} stands in the test split but never in train; the splits must"
                " have the same labels."
            )
        if not self.multi_label and sum(n > 0 for n in train.values()) < 2:  # noqa: PLR2004
            raise LabelError("The train split has only one class; a classifier needs two.")


def natural_order(names: Iterable[str]) -> list[str]:
    """Numbers by value when all are numbers, else by name; the same on every machine."""
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def _wanted_names(wanted: str | None) -> tuple[str, ...]:
    if not wanted:
        return ()
    path = Path(wanted).expanduser()
    try:
        listed = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"--labels {wanted} cannot be read ({error}).") from error
    names = [name.strip() for name in (wanted.split(",") if listed is None else listed)]
    names = [name for name in names if name]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LabelError(f"--labels names {twice!r} twice.")
    return tuple(names)


def _name_numbers(
    seen: Sequence[str], names: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take labels *seen* as places in *names*."""
    strange = [label for label in seen if not label.isdigit() or int(label) >= len(names)]
    if strange:
        raise LabelError(
            f"Label {min(strange)!r} is not among the {len(names)} of --labels"
            f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})."  # noqa: PLR2004
        )
    return names, tuple(names[int(label)] for label in seen)
