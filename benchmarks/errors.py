"""What can stop a benchmark.

BenchmarkError           exit code 1
├── ServerUnreachable    nothing answers at the URL, or it stopped answering
├── LoadFailed           the load client did not finish, or no request was answered
├── TooFewFiles          the load client may not open as many connections
├── GoalUnreachable      no rate, however low, keeps the latency goal
├── ConfigNotWritten     serving did not write the config file of the best setting
├── NoTexts              the workload file is missing or holds no text
├── NoArtifact           the package or checkpoint to measure is not there
├── ImpossibleOption     an option that cannot be
├── PortTaken            somebody else answers where a server is to be started
├── PlainModelFailed     the checkpoint could not be made into plain ONNX or int8
├── PackageUnrelated     a package to compare answers another question, or runs on no backend
├── PeerFailed           a server of `bench peers` did not start, or stopped
├── PeerDisagrees        its answers are not those of the checkpoint
├── PeerNotInstalled     the libraries of a peer could not be installed
├── PeerUnsuited         peers cannot serve such a package, or there is no such peer
├── NoReplica            the server's processes hold no replica
├── EngineBroke          the bare engine's process failed
├── BadTrace             a file to replay is missing or holds no arrivals
├── StageOverran         a stage of `bench all` took longer than its share
├── NoRecord             a record is missing, of another kind or version, or not as it should be
└── RecordsDiffer        two records that say nothing about each other
"""

from __future__ import annotations


class BenchmarkError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class ServerUnreachable(BenchmarkError):
    """Nothing answers at the URL, or it stopped answering."""


class LoadFailed(BenchmarkError):
    """The load client did not finish, or no request was answered."""


class TooFewFiles(BenchmarkError):
    """The load client may not open as many connections."""


class GoalUnreachable(BenchmarkError):
    """No rate, however low, keeps the latency goal."""


class ConfigNotWritten(BenchmarkError):
    """Serving did not write the config file of the best setting."""


class NoTexts(BenchmarkError):
    """The workload file is missing or holds no text."""


class NoArtifact(BenchmarkError):
    """The package or checkpoint to measure is not there."""


class ImpossibleOption(BenchmarkError):
    """An option that cannot be."""


class PortTaken(BenchmarkError):
    """Somebody else answers where a server is to be started."""


class PlainModelFailed(BenchmarkError):
    """The checkpoint could not be made into plain ONNX or int8."""


class PackageUnrelated(BenchmarkError):
    """A package to compare answers another question than the first, or runs on no backend."""


class PeerFailed(BenchmarkError):
    """A server of `bench peers` did not start, or stopped."""


class PeerDisagrees(BenchmarkError):
    """A peer's answers are not those of the checkpoint."""


class PeerNotInstalled(BenchmarkError):
    """The libraries of a peer could not be installed."""


class PeerUnsuited(BenchmarkError):
    """Peers cannot serve such a package, or there is no such peer."""


class NoReplica(BenchmarkError):
    """The server's processes hold no replica."""


class EngineBroke(BenchmarkError):
    """The bare engine's process failed."""


class BadTrace(BenchmarkError):
    """A file to replay is missing or holds no arrivals."""


class StageOverran(BenchmarkError):
    """A stage of `bench all` took longer than its share."""


class NoRecord(BenchmarkError):
    """A record is missing, of another kind or version, or not as it should be."""


class RecordsDiffer(BenchmarkError):
    """Two records that say nothing about each other: other machines, other scenarios."""
