"""What is known of a shadow: of one replica, and of all. Pure, and no text in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from serving.agreement import Agreed, Counts, said_by, together
from serving.rollout.wanted import PinnedShare

Standing = Literal["starting", "comparing", "restarting", "failed"]
# Why a text was left out: it had been compared just before; the candidate does not take it, as one that
# is too long for it and must not be cut; the candidate broke on it, or was down.
Reason = Literal["repeated", "refused", "failed"]


@dataclass(slots=True, kw_only=True)
class ShadowState:
    """Of one replica, since the candidate was put beside the champion; a request's texts count each.

    offered: of the requests in the share; each of them was compared (`counts`), dropped, there being too
    many that wait, left out, or it waits. trouble: why it stands so, where it does not compare.
    """

    champion: str
    candidate: PinnedShare
    standing: Standing
    trouble: str = ""
    offered: int = 0
    waiting: int = 0
    dropped: int = 0
    left_out: dict[Reason, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    @property
    def pair(self) -> tuple[str, str]:
        """The digests of both packages."""
        return self.champion, self.candidate.digest


class ShadowReport(Struct, frozen=True, kw_only=True):
    """Of all replicas: texts that were offered, what became of them, and how far the packages agree.

    champion, candidate: digests. package, share: as in `PinnedShare`. replicas: how many it is of, by how
    they stand; elsewhere: how many have another pair of packages just now, and are not in it.
    """

    package: str
    champion: str
    candidate: str
    share: float
    replicas: dict[Standing, int]
    elsewhere: int
    trouble: list[str]
    offered: int
    compared: int
    waiting: int
    dropped: int
    left_out: dict[Reason, int]
    agreed: Agreed


def reported(states: Sequence[ShadowState | None]) -> ShadowReport | None:
    """Of the candidate and champion that most replicas have side by side; None where none has any.

    states: None of a replica that has none.
    """
    pairs = Counter(state.pair for state in states if state)
    if not pairs:
        return None
    (pair, _), *_ = pairs.most_common(1)
    same = [state for state in states if state and state.pair == pair]
    first = same[0]
    left_out: Counter[Reason] = Counter()
    for state in same:
        left_out.update(state.left_out)
    counts = together(state.counts for state in same)
    return ShadowReport(
        package=first.candidate.package,
        champion=first.champion,
        candidate=first.candidate.digest,
        share=first.candidate.share,
        replicas=dict(Counter(state.standing for state in same)),
        elsewhere=len(states) - len(same),
        trouble=sorted({state.trouble for state in same if state.trouble}),
        offered=sum(state.offered for state in same),
        compared=counts.texts,
        waiting=sum(state.waiting for state in same),
        dropped=sum(state.dropped for state in same),
        left_out=dict(left_out),
        agreed=said_by(counts),
    )
