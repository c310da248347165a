"""How far two packages agree on the same texts: what is counted, and what the counts say. Pure.

The champion is the package whose answers callers get, the candidate the one that is tried. They are
compared by the names of labels, so they need not have the same ones: a label that only one of them
knows is never agreed on, and its probability has not shifted but come or gone.

Counts of several replicas are put together by adding them up, and say what one replica would that had
compared all of the texts. So times are counted by powers of 2 ** (1/16): a percentile of them is right to
2.2 %, however many replicas it is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

_Z95 = 1.96
_STEPS = 16  # of a doubling of time
_LEAST_MS = 1e-3


class Opinion(Struct, frozen=True, kw_only=True):
    """What a package says of a text: the labels it gives, the probability of each that it knows.

    infer_ms: of its batch; None where the answer was known.
    """

    given: tuple[str, ...]
    scores: Mapping[str, float]
    infer_ms: float | None = None


@dataclass(slots=True, kw_only=True)
class Times:
    """Of batches, counted by size. buckets: n -> those above 2 ** ((n - 1) / 16) ms and up to 2 ** (n / 16)."""

    buckets: dict[int, int] = field(default_factory=dict)
    total_ms: float = 0.0

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.buckets.values())

    def add(self, ms: float) -> None:
        """One more."""
        bucket = math.ceil(_STEPS * math.log2(max(ms, _LEAST_MS)))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.total_ms += ms

    def up_to(self, power: int) -> int:
        """How many took 2 ** *power* ms at most."""
        return sum(count for bucket, count in self.buckets.items() if bucket <= _STEPS * power)

    def percentile_ms(self, share: float) -> float | None:
        """Nearest rank, to 2.2 %; None of none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return float(2 ** ((bucket - 0.5) / _STEPS))
        return None


@dataclass(slots=True, kw_only=True)
class LabelCounts:
    """Texts that got one label, from whom. scored: those of which both say how likely it is.

    shift, moved: sums over these, of how much likelier the candidate finds it, and of the size of that.
    """

    champion: int = 0
    candidate: int = 0
    both: int = 0
    scored: int = 0
    shift: float = 0.0
    moved: float = 0.0


@dataclass(slots=True, kw_only=True)
class Counts:
    """Of texts that both packages answered.

    labels: by name. pairs: (champion's label, candidate's) -> texts, where each gave one label and they
    differ; there are no more of them than pairs of labels.
    """

    texts: int = 0
    agreeing: int = 0
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    champion_ms: Times = field(default_factory=Times)
    candidate_ms: Times = field(default_factory=Times)

    def add(self, champion: Opinion, candidate: Opinion) -> None:
        """One text. Two sets of labels agree when they are equal."""
        ours, theirs = set(champion.given), set(candidate.given)
        self.texts += 1
        self.agreeing += ours == theirs
        for label in (*champion.scores, *(candidate.scores.keys() - champion.scores.keys())):
            counts = self.labels.setdefault(label, LabelCounts())
            counts.champion += label in ours
            counts.candidate += label in theirs
            counts.both += label in ours and label in theirs
            if label in champion.scores and label in candidate.scores:
                shift = candidate.scores[label] - champion.scores[label]
                counts.scored += 1
                counts.shift += shift
                counts.moved += abs(shift)
        if len(ours) == len(theirs) == 1 and ours != theirs:
            pair = (champion.given[0], candidate.given[0])
            self.pairs[pair] = self.pairs.get(pair, 0) + 1
        for times, opinion in ((self.champion_ms, champion), (self.candidate_ms, candidate)):
            if opinion.infer_ms is not None:
                times.add(opinion.infer_ms)


def together(several: Iterable[Counts]) -> Counts:
    """As if all texts had been counted at once."""
    total = Counts()
    for each in several:
        total.texts += each.texts
        total.agreeing += each.agreeing
        for label, counts in each.labels.items():
            into = total.labels.setdefault(label, LabelCounts())
            for name in LabelCounts.__slots__:
                setattr(into, name, getattr(into, name) + getattr(counts, name))
        for pair, texts in each.pairs.items():
            total.pairs[pair] = total.pairs.get(pair, 0) + texts
        for sums, times in (
            (total.champion_ms, each.champion_ms),
            (total.candidate_ms, each.candidate_ms),
        ):
            sums.total_ms += times.total_ms
            for bucket, count in times.buckets.items():
                sums.buckets[bucket] = sums.buckets.get(bucket, 0) + count
    return total


class Interval(Struct, frozen=True, kw_only=True):
    """A share, and from where to where it lies with 95 %."""

    share: float
    low: float
    high: float


class OfLabel(Struct, frozen=True, kw_only=True):
    """Texts that the champion gave a label, the candidate, and both.

    agreement: of the champion's, those to which the candidate gave it, too; None where there are none.
    shift: how much likelier the candidate finds it, on average over all texts; moved: the size of that,
    whichever way. Both are None where one of the packages does not know the label.
    """

    label: str
    champion: int
    candidate: int
    both: int
    agreement: Interval | None
    shift: float | None
    moved: float | None


class Disagreement(Struct, frozen=True, kw_only=True):
    """Texts to which the packages gave these two labels."""

    champion: str
    candidate: str
    texts: int


class InferTimes(Struct, frozen=True, kw_only=True):
    """Milliseconds of the batches that so many texts ran in."""

    p50: float | None
    p99: float | None
    texts: int


class Agreed(Struct, frozen=True, kw_only=True):
    """What `Counts` say. disagreements: the most frequent first. agreement: None of no text."""

    texts: int
    agreeing: int
    agreement: Interval | None
    labels: tuple[OfLabel, ...]
    disagreements: tuple[Disagreement, ...]
    champion_infer_ms: InferTimes
    candidate_infer_ms: InferTimes


def said_by(counts: Counts) -> Agreed:
    """Shares, intervals, means and percentiles."""
    pairs = sorted(counts.pairs.items(), key=lambda item: (-item[1], item[0]))
    return Agreed(
        texts=counts.texts,
        agreeing=counts.agreeing,
        agreement=interval(counts.agreeing, counts.texts),
        labels=tuple(_of_label(name, counts.labels[name]) for name in counts.labels),
        disagreements=tuple(
            Disagreement(champion=ours, candidate=theirs, texts=texts)
            for (ours, theirs), texts in pairs
        ),
        champion_infer_ms=_infer_times(counts.champion_ms),
        candidate_infer_ms=_infer_times(counts.candidate_ms),
    )


def interval(count: int, total: int) -> Interval | None:
    """A share with Wilson's interval; None of nothing."""
    if not total:
        return None
    low, high = wilson(count, total)
    return Interval(share=count / total, low=low, high=high)


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share: Wilson's, which stays in 0..1 and is honest for few rows."""
    if not total:
        return 0.0, 1.0
    share, spread = count / total, _Z95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = _Z95 * math.sqrt(share * (1 - share) / total + spread / 4 / total) / (1 + spread)
    # Rounding alone could leave the share, or 0 and 1, outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def _of_label(label: str, counts: LabelCounts) -> OfLabel:
    return OfLabel(
        label=label,
        champion=counts.champion,
        candidate=counts.candidate,
        both=counts.both,
        agreement=interval(counts.both, counts.champion),
        shift=counts.shift / counts.scored if counts.scored else None,
        moved=counts.moved / counts.scored if counts.scored else None,
    )


def _infer_times(times: Times) -> InferTimes:
    return InferTimes(
        p50=times.percentile_ms(0.5), p99=times.percentile_ms(0.99), texts=times.count
    )
