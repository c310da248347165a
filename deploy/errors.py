"""What can stop the platform's commands.

DeployError              exit code 1; every message is one sentence with the way out
├── NoSource             miniml was installed without the files that an image is made of
├── NoEngine             nothing here builds images; where the context lies is said
├── BuildFailed          the engine was asked, and failed
└── NothingToTake        there is nothing to take over from the job before
"""

from __future__ import annotations


class DeployError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class NoSource(DeployError):
    """miniml was installed without the files that an image is made of."""


class NoEngine(DeployError):
    """Nothing on this machine builds images."""


class BuildFailed(DeployError):
    """The engine was asked, and failed."""


class NothingToTake(DeployError):
    """There is nothing to take over from the job before."""
