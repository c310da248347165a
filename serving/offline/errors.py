"""What can stop an offline prediction; what was finished before stays, and the next run goes on.

OfflineError             exit code 1
├── UnreadableInput      no file, a file that cannot be read, or one without the column
├── BadRow               a row has no text to classify, and bad rows were not allowed
├── OtherRun             the folder holds another run, or other files
├── OutputFailed         a part or a record could not be written or read
└── WorkerLost           workers died too often on one part
"""

from __future__ import annotations

from serving.errors import ServingError


class OfflineError(ServingError):
    """Base of all."""


class UnreadableInput(OfflineError):
    """There is no such file, it is not what its name says, or it has no such column."""


class BadRow(OfflineError):
    """A row has no text to classify; the message names file and row."""


class OtherRun(OfflineError):
    """The output folder belongs to a run of other inputs, package or options."""


class OutputFailed(OfflineError):
    """The output folder cannot be written or read."""


class WorkerLost(OfflineError):
    """Workers died again and again."""
