"""How many replicas there should be: a pure function of the work that arrives and the work that waits.

Work is counted in replica-seconds: what keeps one replica, all its lanes, busy for a second. Knows
nothing of Ray, clocks or requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Whatever the goal, a replica is not planned to be busier: a share of time is left for bursts.
_BUSIEST = 0.9
# Texts come at random: a rate counted from N of them is off by 1/sqrt(N) of itself, one time in three.
_SIGMAS = 2.0
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingGoal:
    """queue_ms: how long a text should wait on average. least, most: replicas.

    drain_s: within which what waits beyond the goal should be gone. lead_s: how far ahead a rise is
    followed, about as long as a replica takes to start. keep_s: as many as were needed at any time in
    it are kept. idle_s: without a text; then none is kept, where least is 0.
    """

    least: int
    most: int
    queue_ms: float = 50.0
    drain_s: float = 5.0
    lead_s: float = 8.0
    keep_s: float = 60.0
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What all replicas said together.

    load: replicas that the work arriving would keep busy, refused work included, on average over the
    last over_s; latest: in the last moment, counted from latest_texts texts. batch_ms: mean time of a
    batch. waiting_s: replica-seconds of work that waits.
    """

    load: float
    over_s: float
    latest: float
    latest_texts: float
    batch_ms: float
    waiting_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingMemory:
    """From one decision to the next.

    needed: (when, replicas) of the past keep_s, each less than the one before: what the most was.
    busy_at_s: when work was last seen.
    """

    needed: tuple[tuple[float, int], ...] = ()
    busy_at_s: float = -math.inf


def decide(
    reported: Reported, goal: ScalingGoal, memory: ScalingMemory, now_s: float
) -> tuple[int, ScalingMemory]:
    """Replicas there should be from now on, within least and most, and what to remember.

    Up at once, to all that is needed. Down only to the most that was needed within keep_s. What is
    remembered of the future, the clock having been set back, is taken for now.
    """
    now_needed = replicas_needed(reported, goal)
    busy_at_s = now_s if now_needed else min(memory.busy_at_s, now_s)
    least = max(goal.least, 1 if now_s - busy_at_s < goal.idle_s else 0)
    recent = [
        (min(at_s, now_s), count)
        for at_s, count in memory.needed
        if now_s - at_s < goal.keep_s and count > now_needed
    ]
    kept = (*recent, (now_s, now_needed))
    wanted = min(max(kept[0][1], least), goal.most)
    return wanted, ScalingMemory(needed=kept, busy_at_s=busy_at_s)


def replicas_needed(reported: Reported, goal: ScalingGoal) -> int:
    """As many as the work that arrives needs, and what waits; 0 when there is neither.

    For what arrives, each busy the share of time that the goal allows; for what waits, all busy.
    """
    load = expected_load(reported, goal)
    beyond_s = reported.waiting_s - load * goal.queue_ms / 1e3
    draining = load + max(0.0, beyond_s) / goal.drain_s
    return math.ceil(max(load / busy_share(reported.batch_ms, goal), draining) - _ROUNDING)


def expected_load(reported: Reported, goal: ScalingGoal) -> float:
    """The work that arrives; if it rises, what it will be when a replica that starts now is there.

    A rise is the latest load, as far as it is sure, over the mean, since the middle of over_s.
    """
    sure = surely_arriving(reported)
    rise_a_s = max(0.0, sure - reported.load) / (reported.over_s / 2)
    return max(reported.load, sure) + rise_a_s * goal.lead_s


def busy_share(batch_ms: float, goal: ScalingGoal) -> float:
    """How busy a replica may be for a text to wait no longer than the goal, on average.

    In a queue with random arrivals and services of batch_ms, busy a share u of the time, the mean
    wait is batch_ms * u / (1 - u) (M/M/1; Kleinrock, Queueing Systems I, 3.2). Batches make it
    shorter than that.
    """
    return min(goal.queue_ms / (goal.queue_ms + batch_ms), _BUSIEST)


def surely_arriving(reported: Reported) -> float:
    """The latest load, less what chance may have added to it."""
    texts = reported.latest_texts
    return reported.latest * max(0.0, 1 - _SIGMAS / math.sqrt(texts)) if texts else 0.0
