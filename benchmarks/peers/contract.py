"""What every peer is told (by environment) and asked (`POST /predict`), and how it answers.

Knows no server: the peers import it, and so does who starts them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

_MODEL, _MAX_LENGTH, _CORES = "PEER_MODEL", "PEER_MAX_LENGTH", "PEER_CORES"
_DEVICE, _DTYPE = "PEER_DEVICE", "PEER_DTYPE"


class PeerQuestion(BaseModel):
    """Body of `POST /predict`."""

    text: str


class PeerAnswer(BaseModel):
    """The likeliest label and its probability."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """model: a folder with config, tokenizer and weights. max_length: tokens, special ones included.

    cores: threads that the peer may compute on, over all its processes. device, dtype: in torch's
    words, for those who run torch.
    """

    model: Path
    max_length: int
    cores: int
    device: str = "cpu"
    dtype: str = "float32"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables."""
        return {
            _MODEL: str(self.model),
            _MAX_LENGTH: str(self.max_length),
            _CORES: str(self.cores),
            _DEVICE: self.device,
            _DTYPE: self.dtype,
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PeerSettings:
        """What `environment` wrote."""
        return cls(
            model=Path(environment[_MODEL]),
            max_length=int(environment[_MAX_LENGTH]),
            cores=int(environment[_CORES]),
            device=environment[_DEVICE],
            dtype=environment[_DTYPE],
        )
