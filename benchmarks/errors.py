"""What can stop a benchmark.

BenchmarkError           exit code 1
├── ServerUnreachable    nothing answers at the URL, or it stopped answering
├── LoadFailed           the load client did not finish, or no request was answered
├── NoTexts              the workload file is missing or holds no text
├── NoArtifact           the package or checkpoint to measure is not there
├── ImpossibleOption     an option that cannot be
├── PortTaken            somebody else answers where a server is to be started
├── NoReplica            the server's processes hold no replica
└── EngineBroke          the bare engine's process failed
"""

from __future__ import annotations


class BenchmarkError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class ServerUnreachable(BenchmarkError):
    """Nothing answers at the URL, or it stopped answering."""


class LoadFailed(BenchmarkError):
    """The load client did not finish, or no request was answered."""


class NoTexts(BenchmarkError):
    """The workload file is missing or holds no text."""


class NoArtifact(BenchmarkError):
    """The package or checkpoint to measure is not there."""


class ImpossibleOption(BenchmarkError):
    """An option that cannot be."""


class PortTaken(BenchmarkError):
    """Somebody else answers where a server is to be started."""


class NoReplica(BenchmarkError):
    """The server's processes hold no replica."""


class EngineBroke(BenchmarkError):
    """The bare engine's process failed."""
