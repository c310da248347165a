"""The size of an encoder, from its config: what one text costs at least. Pure but for the reading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """hidden: channels of a token. inner: of the feed-forward layer."""

    hidden: int
    layers: int
    inner: int

    @property
    def weights(self) -> int:
        """Numbers in the products of all layers: what must be read from memory for a batch."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)

    def gop(self, tokens: int) -> float:
        """1e9 operations for one text: its products, two operations a multiply-add."""
        attention = self.layers * 2 * tokens * tokens * self.hidden
        return 2 * (tokens * self.weights + attention) / 1e9


def read_geometry(checkpoint: Path) -> Geometry:
    """Of `config.json` in the folder; DistilBERT has words of its own."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    return Geometry(
        hidden=config.get("hidden_size") or config["dim"],
        layers=config.get("num_hidden_layers") or config["n_layers"],
        inner=config.get("intermediate_size") or config["hidden_dim"],
    )
