"""Whether a peer answers as the checkpoint does: a fast server of another model proves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from benchmarks.errors import PeerDisagrees, PeerFailed
from benchmarks.peers.codecs import JSON, NATIVE, Codec

LEAST_SHARE = 0.8  # int8 moves a few labels in a hundred, a wrong model most of them
_AT_ONCE = 8  # in company, as under load


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAgreement:
    """On how many of the texts asked a peer gave the label of the fp32 checkpoint."""

    agreed: int
    asked: int

    @property
    def share(self) -> float:
        """Agreed of asked."""
        return self.agreed / self.asked


def check_labels(
    name: str, url: str, texts: Sequence[str], expected: Sequence[str], codec: Codec = NATIVE
) -> LabelAgreement:
    """Ask every text and compare. Raises `PeerFailed` or, below 80 %, `PeerDisagrees`."""
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=60.0) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        found = list(pool.map(lambda text: _label(name, client, text, codec), texts))
    agreed = sum(label == right for label, right in zip(found, expected, strict=True))
    agreement = LabelAgreement(agreed=agreed, asked=len(texts))
    if agreement.share < LEAST_SHARE:
        raise PeerDisagrees(
            f"{name} gives the label of the fp32 checkpoint on {agreed} of {len(texts)} texts, fewer"
            f" than {LEAST_SHARE:.0%}; that is another model, so its speed says nothing."
        )
    return agreement


def _label(name: str, client: httpx.Client, text: str, codec: Codec) -> str:
    try:
        answer = client.post(codec.path, content=codec.encode(text), headers=JSON)
        answer.raise_for_status()
        return codec.decode(answer.content)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PeerFailed(f"{name} gave no label for a text ({error}).") from error
