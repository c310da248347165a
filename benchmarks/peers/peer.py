"""What a peer is, to who starts it and asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.codecs import NATIVE, Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server. about: what it is and its threads, for people. command: serves on its port.

    model: what it reads. codec: how it is asked. folder: where it runs; the caller's own when None.
    """

    name: str
    about: str
    command: Sequence[str]
    model: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    codec: Codec = NATIVE
    folder: Path | None = None
