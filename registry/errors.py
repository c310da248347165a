"""What can go wrong with an artifact or the registry.

RegistryError            exit code 1; every message is one sentence with the way out
├── CorruptArtifact      bytes on disk differ from the manifest, or there is no manifest
├── ArtifactExists       the target folder is already there
├── NotFound             no such name, version, alias or path
├── BadReference         the text is not a reference
├── StoreUnavailable     the tracking server or its artifact store does not answer
└── AddressTaken         the port for the page is in use
"""

from __future__ import annotations


class RegistryError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class CorruptArtifact(RegistryError):
    """The folder is not, or no longer, what its manifest says."""


class ArtifactExists(RegistryError):
    """The target folder is already there; artifacts are never overwritten."""


class NotFound(RegistryError):
    """No such name, version, alias or path."""


class BadReference(RegistryError):
    """The text cannot be read as a reference."""


class StoreUnavailable(RegistryError):
    """The tracking server or its artifact store does not answer."""


class AddressTaken(RegistryError):
    """The registry's page cannot be shown there: somebody listens already, or it is no port."""
