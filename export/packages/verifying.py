"""`miniml package verify`: bytes, signature, and the golden answers asked again on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from export.errors import AnswersDiffer
from export.package_options import VerifyOptions
from export.packages.opening import OpenedPackage, golden_answers, open_reference
from export.packages.showing import facts
from export.signing import verify_signature
from serving.engine import Engine, prediction
from serving.package import GOLDEN_TOLERANCE, GoldenAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A package that passed. signature_verified: False when no key was given.

    max_logit_difference: over golden texts and labels, against what the export wrote down.
    """

    opened: OpenedPackage
    signature_verified: bool
    golden_texts: int
    max_logit_difference: float

    def document(self) -> dict[str, object]:
        """What was proved; labels_agree is always true, or there would be no result."""
        return {
            **self.opened.document(),
            "signature_verified": self.signature_verified,
            "golden_texts": self.golden_texts,
            "max_logit_difference": self.max_logit_difference,
            "labels_agree": True,
        }

    def __rich__(self) -> Table:
        """A line for each proof."""
        files = len(self.opened.package.manifest.files)
        unchecked = "there, not checked (--public-key)" if self.opened.signed else "none"
        said = f"same labels on {self.golden_texts} golden texts"
        return facts(
            (
                ("package", self.opened.reference),
                ("digest", self.opened.package.digest),
                ("files", f"all {files} as listed"),
                ("signature", "good" if self.signature_verified else unchecked),
                ("answers", f"{said}, logits within {self.max_logit_difference:.2g}"),
            )
        )


def verify_package(options: VerifyOptions) -> Verification:
    """Raises an error with one sentence for whatever does not hold: a file, the signature, answers."""
    opened = open_reference(options.package)
    if options.public_key is not None:
        verify_signature(opened.package.folder, options.public_key)
    engine, golden = Engine(opened.package), golden_answers(opened.package)
    return Verification(
        opened=opened,
        signature_verified=options.public_key is not None,
        golden_texts=len(golden),
        max_logit_difference=_ask_again(engine, golden),
    )


def _ask_again(engine: Engine, golden: Sequence[GoldenAnswer]) -> float:
    """The largest difference of a logit. Raises `AnswersDiffer` for a large one or another label."""
    logits = engine.logits([g.text for g in golden], [g.text_pair for g in golden])
    largest = 0.0
    for answer, row in zip(golden, logits, strict=True):
        written = np.asarray(answer.logits, dtype=np.float32)
        if written.shape != row.shape:
            raise AnswersDiffer(_message(answer, f"{row.size} logits, not {written.size}"))
        difference = float(np.abs(row - written).max())
        if not difference <= GOLDEN_TOLERANCE:  # not a number is no answer either
            raise AnswersDiffer(_message(answer, f"logits that differ by {difference:.3f}"))
        given, expected = (prediction(values, engine.package) for values in (row, written))
        if (given.label, _names(given.labels)) != (expected.label, _names(expected.labels)):
            raise AnswersDiffer(_message(answer, f"{given.label!r}, not {expected.label!r}"))
        largest = max(largest, difference)
    return largest


def _names(labels: tuple[tuple[str, float], ...] | None) -> set[str]:
    return {name for name, _ in labels or ()}


def _message(answer: GoldenAnswer, seen: str) -> str:
    return (
        f"The package does not give its golden answers on this machine ({seen} on"
        f" {answer.text[:40]!r}); export it again here."
    )
