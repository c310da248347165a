"""Ten times what the server can answer, and what comes after it.

While it lasts, a caller of our own asks now and then and reads the heads of its answers, which the
load client does not. Before and after, a light load says what normal service is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.core.scenarios import (
    LOOP_LATE,
    OVERLOAD_CALLERS,
    OVERLOAD_TEXTS,
    OVERLOAD_TIMES,
    REFUSED,
    Seen,
    Stand,
    closed_run,
    server_says,
)
from benchmarks.processes import tree_pss_bytes
from benchmarks.record import percentile
from benchmarks.wire import OK, Body, WireRun, open_loop
from benchmarks.workloads import call_bodies
from serving.client import key_header

_LIGHT_SHARE = 0.1  # of the capacity: hardly any two requests meet
_LIGHT_S, _LIGHT_WINDOW_S, _LIGHT_STEP_S = 15.0, 2.0, 0.25
_SETTLE_S = 2.0  # what the load before it left is answered by then
_ASK_EVERY_S, _ASK_TIMEOUT_S = 0.25, 30.0


@dataclass(slots=True)
class AnswersSeen:
    """What a caller was told: refusals, those that said when to come again; and what was no answer."""

    refused: int = 0
    with_retry_after: int = 0
    unanswered: int = 0


def overloaded(stand: Stand) -> Seen:
    """Calls of 8 reviews at ten times what is answered: what still is, how fast the rest is refused.

    And how soon after it a light load is served as before.
    """
    bodies = call_bodies(stand.texts["reviews"], texts_per_call=OVERLOAD_TEXTS)
    capacity = closed_run(stand, bodies, OVERLOAD_CALLERS).steady_texts_per_s
    before = _light(stand, capacity, warmup_s=_SETTLE_S)
    before_bytes = tree_pss_bytes(stand.pid)
    with _asking(stand.url, bodies) as asked:
        run = open_loop(
            stand.url,
            bodies,
            rate_per_s=OVERLOAD_TIMES * capacity / OVERLOAD_TEXTS,
            warmup_s=min(stand.warmup_s, stand.overload_s / 4),
            duration_s=stand.overload_s,
            seed=stand.seed,
        )
    after_bytes = tree_pss_bytes(stand.pid)
    after = _light(stand, capacity, warmup_s=0.0)
    refused = [shot.latency_ms for shot in run.shots if shot.status in REFUSED]
    lost = sum(shot.status not in (OK, *REFUSED) for shot in run.shots) + asked.unanswered
    seen = {
        "capacity_texts_per_s": [capacity],
        "goodput_texts_per_s": [run.texts_per_s],
        "overload_lost": [float(lost)],
        "refusals_seen": [float(asked.refused)],
        "refusals_without_retry_after": [float(asked.refused - asked.with_retry_after)],
        "memory_before_mb": [before_bytes / 1e6],
        "memory_after_mb": [after_bytes / 1e6],
        "light_before_p99_ms": window_p99s_ms(before),
        "light_after_p99_ms": window_p99s_ms(after),
    }
    end_s = run.began_s + run.warmup_s + run.duration_s
    if (normal_s := recovered_s(before, after, overload_end_s=end_s)) is not None:
        seen["recovery_s"] = [normal_s]
    seen |= server_says(stand.url, {LOOP_LATE: f"overload_{LOOP_LATE}"})
    return seen | ({"refusal_p99_ms": [percentile(refused, 99)]} if refused else {})


def recovered_s(before: WireRun, after: WireRun, *, overload_end_s: float) -> float | None:
    """Seconds from the end of the overload until service was as in *before*; None if it never was.

    As before: two seconds in which every request is answered, with a p99 no higher than the highest
    of any two seconds before. overload_end_s: by `time.perf_counter`, when the last was due.
    """
    usual_ms = max(window_p99s_ms(before), default=0.0)
    for window in _windows(after):
        normal = not window.errors and window.latencies_ms
        if normal and window.percentile_ms(99) <= usual_ms:
            return max(after.began_s + window.warmup_s - overload_end_s, 0.0)
    return None


def window_p99s_ms(run: WireRun) -> list[float]:
    """The p99 of every two seconds of *run* in which something was answered."""
    return [w.percentile_ms(99) for w in _windows(run) if w.latencies_ms]


def _windows(run: WireRun) -> Iterator[WireRun]:
    """Two seconds each, a quarter of a second apart."""
    begin_s, end_s = run.warmup_s, run.warmup_s + run.duration_s
    while begin_s + _LIGHT_WINDOW_S <= end_s:
        yield run.window(begin_s, begin_s + _LIGHT_WINDOW_S)
        begin_s += _LIGHT_STEP_S


def _light(stand: Stand, capacity_per_s: float, *, warmup_s: float) -> WireRun:
    """Single reviews, by chance, at a tenth of the capacity."""
    return open_loop(
        stand.url,
        call_bodies(stand.texts["reviews"]),
        rate_per_s=_LIGHT_SHARE * capacity_per_s,
        warmup_s=warmup_s,
        duration_s=_LIGHT_S,
        seed=stand.seed,
    )


@contextmanager
def _asking(url: str, bodies: Sequence[Body]) -> Iterator[AnswersSeen]:
    """A caller that asks four times a second while the block runs, and notes how it is refused."""
    asked, over = AnswersSeen(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=_ASK_TIMEOUT_S, trust_env=False) as client:
            place = 0
            while not over.wait(_ASK_EVERY_S):
                content = bodies[place % len(bodies)].content
                place += 1
                try:
                    answer = client.post("/predict", content=content, headers=key_header())
                except httpx.HTTPError:
                    asked.unanswered += 1
                    continue
                if answer.status_code in REFUSED:
                    asked.refused += 1
                    asked.with_retry_after += answer.headers.get("retry-after", "").isdigit()

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        yield asked
    finally:
        over.set()
        caller.join()
