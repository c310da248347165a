"""Whether live answers still look like those to the exam: the population stability index. Pure.

Between shares e of the exam and s of what is seen, PSI is the sum of (s - e) ln(s / e) over the bins.
Below 0.1 a population counts as stable, from 0.25 on as shifted (Siddiqi, Credit Risk Scorecards,
2006). Those marks know nothing of sample sizes: even of one kind of answers, m rows of the exam and n
live ones in B bins differ by chance, and PSI is then about (1/n + 1/m) times a chi-square of B - 1
degrees of freedom (Yurdakul, Statistical Properties of Population Stability Index, 2018): on average
(B - 1)(1/n + 1/m). In 10 bins with a full window and 500 rows that is 0.023; with the least answers
and the demo's 140 rows 0.109, beyond the first mark. So a drift stands beside what chance reaches, and
only what is beyond both counts.

The window is of the last 2,000 answers: of the noise above, 0.0045 is then theirs, less than the rows
of almost any exam leave, and a longer one would only forget later. Below 200 answers nothing is said:
theirs alone would be 0.045.

A chi-square wants five rows a bin. Neighbouring bins of confidence that have fewer are joined, but not to
one that has enough: answers that are suddenly unsure must not vanish in the bin of the sure ones. Labels
that fewer than five rows got count as one. A bin that is empty on one side would make PSI infinite: half
a row of the smaller side is added to every bin, as a share and the same to both sides, so that equal
shares stay equal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.package import ExamMix

STABLE_BELOW, SHIFTED_FROM = 0.1, 0.25
WINDOW, LEAST = 2000, 200
_LEAST_ROWS = 5
_ADDED = 0.5  # rows
_Z999 = 3.0902  # of a normal variable, 1 in 1,000 is larger

State = Literal["stable", "moving", "shifted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """psi: of the window against the exam. chance: PSI that 1 in 1,000 windows reaches without drift."""

    psi: float
    chance: float

    @property
    def state(self) -> State:
        """What the marks say, as far as it is more than chance."""
        if self.psi < max(STABLE_BELOW, self.chance):
            return "stable"
        return "shifted" if self.psi >= SHIFTED_FROM else "moving"


class LastAnswers:
    """The last answers, as counts: an answer costs two of them, and sums are made when asked for."""

    def __init__(self, exam: ExamMix) -> None:
        self._bins = joined_neighbours(exam.confidence)
        self._labels = joined_rare(exam.labels)
        self._wide = max(self._bins) + 1
        self._exam_bins = _counts(exam.confidence, self._bins)
        self._exam_labels = _counts(exam.labels, self._labels)
        self._last: deque[int] = deque()
        self._pairs = [0] * (self._wide * len(self._exam_labels))  # label and bin together

    def __len__(self) -> int:
        """How many answers it holds."""
        return len(self._last)

    def add(self, label: int, confidence: int) -> None:
        """An answer: the places of its label and of its bin in `ExamMix`."""
        pair = self._labels[label] * self._wide + self._bins[confidence]
        if len(self._last) == WINDOW:
            self._pairs[self._last.popleft()] -= 1
        self._last.append(pair)
        self._pairs[pair] += 1

    def drifts(self) -> dict[str, Drift]:
        """Of "confidence" and of "labels"; nothing before there are enough answers."""
        if len(self._last) < LEAST:
            return {}
        rows = [self._pairs[at : at + self._wide] for at in range(0, len(self._pairs), self._wide)]
        bins = [sum(column) for column in zip(*rows, strict=True)]
        return {
            "confidence": drift(self._exam_bins, bins),
            "labels": drift(self._exam_labels, [sum(row) for row in rows]),
        }


def drift(exam: Sequence[int], seen: Sequence[int]) -> Drift:
    """Of two counts over the same bins."""
    filled = sum(1 for pair in zip(exam, seen, strict=True) if any(pair))
    return Drift(psi=psi(exam, seen), chance=chance(filled, sum(exam), sum(seen)))


def psi(exam: Sequence[int], seen: Sequence[int]) -> float:
    """The population stability index of two counts over the same bins; 0 when either has no rows."""
    rows, answers = sum(exam), sum(seen)
    if not (rows and answers):
        return 0.0
    added = _ADDED / min(rows, answers)
    total = 0.0
    for left, right in zip(exam, seen, strict=True):
        if left or right:
            of_exam, of_seen = left / rows + added, right / answers + added
            total += (of_seen - of_exam) * math.log(of_seen / of_exam)
    filled = sum(1 for pair in zip(exam, seen, strict=True) if any(pair))
    return total / (1 + filled * added)  # the shares with what was added to them are more than 1


def chance(bins: int, rows: int, answers: int) -> float:
    """PSI that two samples of one kind exceed once in 1,000 times; Wilson and Hilferty's chi-square."""
    if bins < 2 or not (rows and answers):  # noqa: PLR2004 - of one bin all shares are equal
        return 0.0
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    chi_square = freedom * (1 - spread + _Z999 * math.sqrt(spread)) ** 3
    return chi_square * (1 / rows + 1 / answers)


def joined_neighbours(counts: Sequence[int]) -> list[int]:
    """Bin -> the joined bin it belongs to, in order: one each, but for neighbours that have few rows.

    Those are joined until they have five, or one comes that has five by itself.
    """
    places, at, held = [0], 0, counts[0]
    for count in counts[1:]:
        if held >= _LEAST_ROWS or count >= _LEAST_ROWS:
            at, held = at + 1, 0
        places.append(at)
        held += count
    return places


def joined_rare(counts: Sequence[int]) -> list[int]:
    """Label -> its bin: one each, but for those of fewer than five rows, which share the first."""
    places, following = [], 1
    for count in counts:
        places.append(following if count >= _LEAST_ROWS else 0)
        following += count >= _LEAST_ROWS
    return places


def _counts(counts: Sequence[int], places: Sequence[int]) -> list[int]:
    """*counts* by joined bin."""
    sums = [0] * (max(places) + 1)
    for count, place in zip(counts, places, strict=True):
        sums[place] += count
    return sums
