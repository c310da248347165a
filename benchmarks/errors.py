"""What can stop a benchmark.

BenchmarkError           exit code 1
├── ServerUnreachable    nothing answers at the URL, or it stopped answering
├── LoadFailed           Locust did not finish, or no request was answered
└── NoTexts              the workload file is missing or holds no text
"""

from __future__ import annotations


class BenchmarkError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class ServerUnreachable(BenchmarkError):
    """Nothing answers at the URL, or it stopped answering."""


class LoadFailed(BenchmarkError):
    """Locust did not finish, or no request was answered."""


class NoTexts(BenchmarkError):
    """The workload file is missing or holds no text."""
