"""What can go wrong with an artifact or the registry.

RegistryError            exit code 1; every message is one sentence with the way out
├── CorruptArtifact      bytes on disk differ from the manifest, or there is no manifest
├── ArtifactExists       the target folder is already there
├── NotFound             no such name, version, alias or path
├── BadReference         the text is not a reference, nor a name
├── StoreUnavailable     the tracking server or its artifact store does not answer
├── NotAllowed           it answers, but not to this user, or not to this wish
├── AddressTaken         the port for the page is in use
└── CannotServe          the hub cannot be what was asked for; nothing was started
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
    """The text cannot be read as a reference, or a name cannot be given."""


class StoreUnavailable(RegistryError):
    """The tracking server or its artifact store does not answer."""


class NotAllowed(RegistryError):
    """The server knows no such user and password, or the user may not do this."""


class AddressTaken(RegistryError):
    """The registry cannot be shown there: somebody listens already, or it is no port."""


class CannotServe(RegistryError):
    """The hub would be open to all, lacks a library, or its bytes lie elsewhere."""
