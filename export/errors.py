"""What can stop an export.

ExportError              exit code 1; every message is one sentence with the way out
├── UnusableOption       an option has a value that cannot work
├── UnknownCandidate     no recipe of that name
├── RecipeUnfit          a recipe cannot be made for this checkpoint; others are tried
├── CheckpointError      the checkpoint lacks something, or is of a kind that cannot be exported
├── ExamError            the exam is missing, unreadable or too small
├── ExportMismatch       the fp32 graph does not answer as the checkpoint does
├── CanonicalizerRefused a canonicaliser changes too many answers, fails, or is not idempotent
├── SigningUnavailable   the library that signs is not installed, or not wholly
├── UnusableKey          no elliptic curve key of the needed half can be read from the file
├── NotSigned            the package has no signature
├── SignatureMismatch    the signature is not this key's, or not of these bytes
├── AnswersDiffer        the package does not give its own golden answers here
└── GraphUnreadable      the graph cannot be looked into
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class UnusableOption(ExportError):
    """An option has a value that cannot work."""


class UnknownCandidate(ExportError):
    """There is no recipe of that name."""


class RecipeUnfit(ExportError):
    """A recipe cannot be made for this checkpoint; the message is why, for a table."""


class CheckpointError(ExportError):
    """The checkpoint lacks something, or its architecture cannot be exported."""


class ExamError(ExportError):
    """The exam is missing, unreadable or too small to judge by."""


class ExportMismatch(ExportError):
    """The exported fp32 graph does not give the checkpoint's answers, or gives none at all."""


class CanonicalizerRefused(ExportError):
    """A canonicaliser changes more answers than may flip, fails, or does not keep its own forms."""


class SigningUnavailable(ExportError):
    """The library that signs and verifies is not installed, or not wholly."""


class UnusableKey(ExportError):
    """No elliptic curve key of the needed half can be read from the file."""


class NotSigned(ExportError):
    """The package has no signature."""


class SignatureMismatch(ExportError):
    """The signature was not made with this key, or not over these bytes."""


class AnswersDiffer(ExportError):
    """The package does not give its own golden answers on this machine."""


class GraphUnreadable(ExportError):
    """The graph of a package cannot be looked into."""
