"""Replicas and their queues as a fluid: work arrives, is shared out, waits, is done.

A step is a quarter of a second. Texts arrive at random; each goes to the replica with the least work
before it, as HAProxy's least connections does. Nothing is refused, so the wait tells all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.scaling.trace import Floats, LoadTrace

STEP_S = 0.25
_STEPS_A_S = round(1 / STEP_S)
# Of a text's cost around its mean: its standard deviation as a share of it, as the lengths of reviews.
_SPREAD = 0.8
# Waits are kept in bins, each a hundredth wider than the one before.
_BINS = 1600
BIN_EDGES_S: Floats = np.asarray(1e-3 * 1.01 ** np.arange(_BINS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaKind:
    """What a replica is.

    start_s: from the decision until it takes texts. drain_s: from the decision to end it until it is
    gone, at least. lanes: texts it works on at once. batch_ms: mean time of a batch.
    """

    start_s: float = 8.0
    drain_s: float = 30.0
    lanes: int = 2
    batch_ms: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The cluster as it was in one second.

    texts: that arrived; work_s: replica-seconds of them; waiting_s: that wait at its end; waiting_texts
    and working_texts likewise. running: replicas that take texts.
    """

    texts: float
    work_s: float
    waiting_s: float
    waiting_texts: float
    working_texts: float
    running: int


class ScalingPolicy(Protocol):
    """Says each second how many replicas there should be."""

    def wanted(self, observed: Observed, target: int, now_s: float) -> int:
        """From now on; *target* was wanted so far."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One policy on one trace of S seconds.

    wanted, alive (S,): replicas that were wanted, and that were paid for. busy_s: replica-seconds of
    work done. waits: share of the texts in each bin of BIN_EDGES_S.
    """

    wanted: Floats
    alive: Floats
    waiting_s: Floats
    busy_s: float
    waits: Floats

    @property
    def replica_s(self) -> float:
        """Replica-seconds paid for."""
        return float(self.alive.sum())

    @property
    def wasted_s(self) -> float:
        """Replica-seconds paid for and not worked."""
        return self.replica_s - self.busy_s

    @property
    def changes(self) -> int:
        """How often another number of replicas was wanted."""
        return int(np.count_nonzero(np.diff(self.wanted)))

    def wait_ms(self, percent: float) -> float:
        """The wait that *percent* of the texts did not exceed, to 1 %; 0 below a millisecond."""
        place = int(np.searchsorted(np.cumsum(self.waits), percent / 100))
        return 0.0 if place == 0 else float(BIN_EDGES_S[min(place, _BINS - 1)] * 1e3)


class Cluster:
    """The replicas of one simulation."""

    def __init__(self, kind: ReplicaKind, count: int) -> None:
        self._kind = kind
        self._queues = np.zeros(count)
        self._starting: list[float] = []
        self._ending: list[tuple[float, float]] = []  # (work left, gone at)
        self.busy_s = 0.0
        self.waits = np.zeros(_BINS)

    @property
    def running(self) -> int:
        """Replicas that take texts."""
        return len(self._queues)

    @property
    def alive(self) -> int:
        """Replicas that are paid for."""
        return self.running + len(self._starting) + len(self._ending)

    @property
    def waiting_s(self) -> float:
        """Replica-seconds of work that waits, at replicas that end too."""
        return float(self._queues.sum()) + sum(left for left, _ in self._ending)

    def scale_to(self, wanted: int, now_s: float) -> None:
        """Start or end replicas: those that start go first, then those with the least work."""
        have = self.running + len(self._starting)
        self._starting += [now_s + self._kind.start_s] * (wanted - have)
        while have > wanted and self._starting:
            self._starting.pop()
            have -= 1
        if have > wanted:
            self._queues.sort()
            gone_at_s = now_s + self._kind.drain_s
            self._ending += [(float(left), gone_at_s) for left in self._queues[: have - wanted]]
            self._queues = self._queues[have - wanted :]

    def step(self, work_s: float, texts: float, held_s: float, now_s: float) -> float:
        """One step in which *work_s* of *texts* arrive; returns what nobody could take yet.

        held_s: what nobody could take before.
        """
        started = sum(at_s <= now_s for at_s in self._starting)
        if started:
            self._starting = [at_s for at_s in self._starting if at_s > now_s]
            self._queues = np.concatenate([self._queues, np.zeros(started)])
        if not self.running:
            return held_s + work_s
        self._share_out(work_s + held_s, texts)
        self._work(now_s)
        return 0.0

    def _share_out(self, work_s: float, texts: float) -> None:
        before = self._queues
        level = _level(np.sort(before), work_s)
        after = np.maximum(before, level)
        if work_s > 0:
            # They come spread over the step and are worked on meanwhile: half of what the line grows.
            middle = (before + np.maximum(0, after - STEP_S)) / 2
            places = np.searchsorted(BIN_EDGES_S, middle)
            np.add.at(self.waits, np.minimum(places, _BINS - 1), (after - before) * texts / work_s)
        self._queues = after

    def _work(self, now_s: float) -> None:
        self.busy_s += float(np.minimum(self._queues, STEP_S).sum())
        self._queues = np.maximum(self._queues - STEP_S, 0)
        self.busy_s += sum(min(left, STEP_S) for left, _ in self._ending)
        shrunk = [(max(0.0, left - STEP_S), gone_s) for left, gone_s in self._ending]
        self._ending = [(left, gone_s) for left, gone_s in shrunk if left or gone_s > now_s]


def simulate(
    trace: LoadTrace, policy: ScalingPolicy, kind: ReplicaKind, *, count: int, seed: int
) -> Simulated:
    """*policy* on *trace*, from *count* replicas on; equal seeds give every policy the same texts."""
    chance = np.random.default_rng(seed)
    cluster, target, held_s = Cluster(kind, count), count, 0.0
    seconds = len(trace.load)
    wanted, alive, waiting = np.zeros(seconds), np.zeros(seconds), np.zeros(seconds)
    for second in range(seconds):
        mean_s = float(trace.text_ms[second]) / 1e3
        texts = chance.poisson(trace.texts_per_s[second] * STEP_S, _STEPS_A_S).astype(float)
        noise = chance.normal(0, 1, _STEPS_A_S) * np.sqrt(texts) * mean_s * _SPREAD
        work_s = np.maximum(0, texts * mean_s + noise)
        for step in range(_STEPS_A_S):
            now_s = second + step * STEP_S
            held_s = cluster.step(float(work_s[step]), float(texts[step]), held_s, now_s)
        waiting[second] = cluster.waiting_s + held_s
        target = policy.wanted(
            _observed(cluster, texts, work_s, waiting[second], mean_s, kind), target, second + 1.0
        )
        cluster.scale_to(target, second + 1.0)
        wanted[second], alive[second] = target, cluster.alive
    return Simulated(
        wanted=wanted,
        alive=alive,
        waiting_s=waiting,
        busy_s=cluster.busy_s,
        waits=cluster.waits / max(1.0, cluster.waits.sum()),
    )


def _observed(  # noqa: PLR0913, PLR0917 - one second of everything
    cluster: Cluster,
    texts: Floats,
    work_s: Floats,
    waiting_s: float,
    mean_s: float,
    kind: ReplicaKind,
) -> Observed:
    busy = min(1.0, float(work_s.sum()) / max(1, cluster.running)) if waiting_s == 0 else 1.0
    return Observed(
        texts=float(texts.sum()),
        work_s=float(work_s.sum()),
        waiting_s=waiting_s,
        waiting_texts=waiting_s / mean_s if mean_s else 0.0,
        working_texts=busy * kind.lanes * cluster.running,
        running=cluster.running,
    )


def _level(ascending: Floats, work_s: float) -> float:
    """Up to which queues are filled when *work_s* goes to the shortest first."""
    filled = (work_s + np.cumsum(ascending)) / np.arange(1, len(ascending) + 1)
    fits = filled > ascending  # the i shortest are filled beyond the i-th
    return float(filled[np.flatnonzero(fits)[-1]]) if fits.any() else float(ascending[0])
