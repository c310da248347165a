"""Lead through a search: a first guess, the trials, the curve, the record."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from benchmarks.errors import GoalUnreachable, ImpossibleOption, LoadFailed
from benchmarks.load.endpoint import fetch_info
from benchmarks.load.record import status_name
from benchmarks.load.texts import CallTexts, check_texts, choose_texts
from benchmarks.options import SloOptions
from benchmarks.record import default_path
from benchmarks.slo.record import SloRecord
from benchmarks.slo.search import estimate, next_rate
from benchmarks.slo.trials import Goal, SloTrial, TrialStand
from benchmarks.watching import watching
from benchmarks.wire import WireRun, closed_loop
from benchmarks.workloads import REPEATED, row_bodies

_log = logging.getLogger(__name__)
_PROBE_S, _PROBE_WARMUP_S = 2.0, 0.5
_PROBE_CONNECTIONS = 8
_START_SHARE = 0.6  # of the probe's rate: most goals are kept there
# Of one caller's rate: what is late there is late alone.
_IDLE_SHARE = 0.1
_CURVE_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """A first look. alone_ms: the middle latency of one caller. rate_per_s: of eight callers."""

    alone_ms: float
    rate_per_s: float

    @property
    def idle_per_s(self) -> float:
        """A rate at which hardly any two requests meet."""
        return _IDLE_SHARE * 1e3 / self.alone_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """See `search.next_rate`; max_trials ends a search that finds no end."""

    precision: float
    repeats: int
    max_trials: int


def run_slo(options: SloOptions) -> SloRecord:
    """Search and write the record; on Ctrl-C of what was tried, and then interrupt.

    Raises `BenchmarkError` with one sentence; `GoalUnreachable` when no rate keeps the goal.
    """
    _refuse_impossible(options)
    check_texts(options)
    info = fetch_info(options.url)
    texts = choose_texts(options, info)
    stand = _stand(options, texts)
    probe = look(stand)
    trials: list[SloTrial] = []
    settled = interrupted = False
    try:
        settled = _try_all(stand, trials, probe, options)
    except KeyboardInterrupt:
        interrupted = True
    record = SloRecord(
        goal=stand.goal,
        trials=trials,
        settled=settled,
        partial=interrupted,
        scenario=_scenario(options, texts, probe),
        package_digest=str(info.get("package_digest", "")),
        server=dict(info),
    )
    if trials:
        path = record.write(options.output or default_path("slo"))
        _log.info("The record with every sample is %s", path)
    if interrupted:
        if trials:
            Console(stderr=True).print(record)
        raise KeyboardInterrupt
    return record


def look(stand: TrialStand) -> FirstLook:
    """One caller alone, then eight.

    Raises `LoadFailed` when nothing is answered, `GoalUnreachable` when one caller alone misses it.
    """
    alone = _probe(stand, connections=1)
    alone_ms = alone.percentile_ms(50)
    if alone_ms > stand.goal.p99_ms:
        raise GoalUnreachable(
            f"No rate keeps a p99 of {stand.goal.p99_ms:g} ms: with nobody else asking, a request"
            f" takes {alone_ms:.1f} ms in the middle of {len(alone.latencies_ms)}; give a --p99-ms"
            " well above that, or shorter texts."
        )
    return FirstLook(
        alone_ms=alone_ms,
        rate_per_s=_probe(stand, connections=_PROBE_CONNECTIONS).requests_per_s,
    )


def search(  # noqa: PLR0913 - what a search needs, all by name
    stand: TrialStand,
    trials: list[SloTrial],
    *,
    start_per_s: float,
    idle_per_s: float,
    limits: SearchLimits,
    seed: int,
) -> bool:
    """Try rates and append each trial to *trials*; True when nothing was left to learn.

    Every trial has a seed of its own: the same arrivals again would prove nothing. Raises
    `GoalUnreachable` when no rate keeps the goal although hardly two requests meet.
    """
    while len(trials) < limits.max_trials:
        rate_per_s = next_rate(
            [trial.tried for trial in trials],
            start_per_s=start_per_s,
            precision=limits.precision,
            repeats=limits.repeats,
        )
        if rate_per_s is None:
            return True
        if rate_per_s < idle_per_s and all(trial.miss for trial in trials) and trials:
            last = trials[-1]
            raise GoalUnreachable(
                f"No rate keeps a p99 of {stand.goal.p99_ms:g} ms without an error: at"
                f" {last.rate_per_s:.2g} requests/s, where hardly two meet, {last.miss}; give a"
                " higher --p99-ms."
            )
        trial = stand.attempt(rate_per_s, seed=seed + len(trials))
        trials.append(trial)
        _tell(trial)
    return False


def _stand(options: SloOptions, texts: CallTexts) -> TrialStand:
    return TrialStand(
        url=options.url,
        bodies=row_bodies(
            texts.rows,
            texts_per_call=options.texts_per_call,
            seed=options.seed,
            fresh=options.workload != REPEATED,
        ),
        goal=Goal(p99_ms=options.p99_ms),
        trial_s=options.trial_s,
        warmup_s=options.warmup_s,
        client=options.client,
    )


def _try_all(
    stand: TrialStand, trials: list[SloTrial], probe: FirstLook, options: SloOptions
) -> bool:
    """The search, then the curve; True when the search came to its end."""
    settled = search(
        stand,
        trials,
        start_per_s=_START_SHARE * probe.rate_per_s,
        idle_per_s=probe.idle_per_s,
        limits=SearchLimits(
            precision=options.precision, repeats=options.repeats, max_trials=options.max_trials
        ),
        seed=options.seed,
    )
    if options.curve:
        _measure_curve(stand, trials, options.seed)
    return settled


def _measure_curve(stand: TrialStand, trials: list[SloTrial], seed: int) -> None:
    """Rates well below the answer, for the curve."""
    found = estimate([trial.tried for trial in trials]).rate_per_s
    for share in _CURVE_SHARES:
        if found:
            trial = stand.attempt(share * found, seed=seed + len(trials), role="curve")
            trials.append(trial)
            _tell(trial)


def _tell(trial: SloTrial) -> None:
    tail = f"p99 {trial.run.percentile_ms(99):.1f} ms" if trial.run.latencies_ms else "no answer"
    verdict = f"missed: {trial.miss}" if trial.miss else f"held: {tail}"
    _log.info("%8.1f requests/s %s", trial.rate_per_s, verdict)


def _probe(stand: TrialStand, *, connections: int) -> WireRun:
    with watching("First look", warmup_s=_PROBE_WARMUP_S, duration_s=_PROBE_S) as watcher:
        run = closed_loop(
            stand.url,
            stand.bodies,
            connections=connections,
            warmup_s=_PROBE_WARMUP_S,
            duration_s=_PROBE_S,
            watcher=watcher,
        )
    if run.interrupted:
        raise KeyboardInterrupt
    if not run.latencies_ms:
        told = ", ".join(status_name(status) for status in run.errors) or "too slow"
        raise LoadFailed(
            f"{stand.url} answered nothing with 200 within {_PROBE_S:g} s ({told}); see its log."
        )
    return run


def _refuse_impossible(options: SloOptions) -> None:
    if not options.p99_ms > 0:
        raise ImpossibleOption(f"--p99-ms is {options.p99_ms:g}; a goal is above 0.")
    if not options.trial_s > 0 or options.warmup_s < 0:
        raise ImpossibleOption("--trial-s must be above 0, and --warmup-s not below.")
    if options.repeats < 1 or options.max_trials < 1:
        raise ImpossibleOption("--repeats and --max-trials must be 1 at least.")
    if not options.precision > 0:
        raise ImpossibleOption(f"--precision is {options.precision:g}; give a share above 0.")


def _scenario(options: SloOptions, texts: CallTexts, probe: FirstLook) -> dict[str, Any]:
    return {
        **texts.document(),
        "texts_per_call": options.texts_per_call,
        "client": options.client,
        "arrivals": "poisson",
        "alone_p50_ms": round(probe.alone_ms, 3),
        "eight_callers_per_s": round(probe.rate_per_s, 2),
        "trial_s": options.trial_s,
        "warmup_s": options.warmup_s,
        "repeats": options.repeats,
        "max_trials": options.max_trials,
        "precision": options.precision,
        "seed": options.seed,
    }
