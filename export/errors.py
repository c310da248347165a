"""What can stop an export.

ExportError              exit code 1; every message is one sentence with the way out
├── UnusableOption       an option has a value that cannot work
├── UnknownCandidate     no recipe of that name
├── CheckpointError      the checkpoint lacks something, or is of a kind that cannot be exported
├── ExamError            the exam is missing, unreadable or too small
└── ExportMismatch       the fp32 graph does not answer as the checkpoint does
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class UnusableOption(ExportError):
    """An option has a value that cannot work."""


class UnknownCandidate(ExportError):
    """There is no recipe of that name."""


class CheckpointError(ExportError):
    """The checkpoint lacks something, or its architecture cannot be exported."""


class ExamError(ExportError):
    """The exam is missing, unreadable or too small to judge by."""


class ExportMismatch(ExportError):
    """The exported fp32 graph does not give the checkpoint's answers, or gives none at all."""
