"""Lead through a tuning: a server for each setting, races, the config file, the record."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from benchmarks.artifacts import find_folder
from benchmarks.bisection import Tried
from benchmarks.errors import (
    BenchmarkError,
    ConfigNotWritten,
    GoalUnreachable,
    ImpossibleOption,
    LoadFailed,
    ServerUnreachable,
)
from benchmarks.load.endpoint import fetch_info
from benchmarks.load.texts import CallTexts, check_texts, choose_texts
from benchmarks.options import TuneOptions
from benchmarks.record import default_path
from benchmarks.server import serving
from benchmarks.slo.run import look
from benchmarks.slo.trials import Goal, SloTrial, TrialStand
from benchmarks.tune.race import race
from benchmarks.tune.record import Contest, TuneRecord
from benchmarks.tune.space import ServeSetting, batch_settings, lane_settings, queue_settings
from benchmarks.wire import OK
from benchmarks.workloads import REPEATED, row_bodies
from serving.client import RemoteError
from serving.lanes import usable_cores

_log = logging.getLogger(__name__)
_START_SHARE = 0.6  # of what eight callers get
_OVERLOAD = 1.5
_GOODPUT_MARGIN = 1.05
_FINAL_SHARE = 0.7  # of the budget is for the search, the rest to measure the winner again
_SAID_CHARS = 300
# What is wrong with one setting, and says nothing about the next.
_NOT_SERVED = (ServerUnreachable, LoadFailed, GoalUnreachable, RemoteError)


@dataclass(slots=True, kw_only=True)
class _Course:
    """How far it has come; grows."""

    options: TuneOptions
    goal: Goal
    begin_s: float = field(default_factory=time.monotonic)
    contests: list[Contest] = field(default_factory=list)
    best: ServeSetting | None = None
    best_per_s: float = 0.0
    texts: CallTexts | None = None
    complete: bool = True

    def time_left(self, share: float = 1.0) -> bool:
        """Whether *share* of the budget is not over yet; if it is, something was left out."""
        left = time.monotonic() - self.begin_s < share * 60 * self.options.budget_minutes
        self.complete = self.complete and left
        return left


def run_tune(options: TuneOptions) -> TuneRecord:
    """Search, write the config file and the record; on Ctrl-C the record alone, then interrupt.

    Raises `BenchmarkError` with one sentence for what is wrong or missing.
    """
    _refuse_impossible(options)
    check_texts(options)
    for package in options.package:
        find_folder(package, "package")
    course = _Course(options=options, goal=Goal(p99_ms=options.p99_ms))
    interrupted = False
    try:
        _search(course)
    except KeyboardInterrupt:
        interrupted = True
    if course.best is None and not interrupted:
        raise _nothing_held(course)
    if course.best and not interrupted:
        _write_config(course.best, options)
    record = _record(course, partial=interrupted)
    if course.contests:
        path = record.write(options.output or default_path("tune"))
        _log.info("The record with every sample is %s", path)
    if interrupted:
        if course.contests:
            Console(stderr=True).print(record)
        raise KeyboardInterrupt
    return record


def _search(course: _Course) -> None:
    options = course.options
    for setting in lane_settings(options.package, usable_cores()):
        if not course.contests or course.time_left(_FINAL_SHARE):
            _contest(course, setting, "lanes")
    for make, stage in ((_batches, "batch"), (_queues, "queue")):
        for setting in make(course):
            if course.time_left(_FINAL_SHARE):
                _contest(course, setting, stage)
    untuned = ServeSetting(package=options.package[0])
    if course.best and course.best != untuned:
        for setting in (untuned, course.best):
            if course.time_left():
                _contest(course, setting, "final")
        _keep_untuned_unless_worth_it(course, untuned)


def _keep_untuned_unless_worth_it(course: _Course, untuned: ServeSetting) -> None:
    """The best of many was also the luckiest; measured again it must still be better."""
    final = {c.setting: c.rate_per_s for c in course.contests if c.stage == "final"}
    if len(final) > 1 and final[untuned] >= max(final.values()):
        _log.info("Measured again, nothing was better than a server that is told nothing")
        course.best = untuned


def _batches(course: _Course) -> list[ServeSetting]:
    return batch_settings(course.best) if course.best else []


def _queues(course: _Course) -> list[ServeSetting]:
    """With the one that stands first: how much it gets done is what others must beat."""
    if course.best is None:
        return []
    return [course.best, *queue_settings(course.best, course.goal.p99_ms)]


def _contest(course: _Course, setting: ServeSetting, stage: str) -> None:
    """Serve with *setting*, try it, and keep it when it is the best."""
    _log.info("%s: %s", stage, setting.name)
    contest = Contest(setting=setting, stage=stage)
    try:
        with serving(
            setting.package,
            port=course.options.port,
            arguments=setting.arguments,
            environment=setting.environment,
        ) as server:
            info = fetch_info(server.url)
            contest.package_digest = str(info["package_digest"])
            stand = _stand(course, server.url, info)
            if stage == "queue":
                contest.goodput_per_s = _goodput(course, stand, contest.trials)
            else:
                contest.rate_per_s = _race(course, stand, contest.trials, stage)
    except _NOT_SERVED as error:
        contest.fault = str(error)
        _log.info("Left out: %s", error)
    except KeyboardInterrupt:
        contest.fault = "interrupted"
        raise
    finally:
        _judge(course, contest)
        course.contests.append(contest)


def _judge(course: _Course, contest: Contest) -> None:
    """Whether it is the best now. A final only measures again what was chosen."""
    if contest.stage == "queue":
        rivals = [c.goodput_per_s or 0.0 for c in course.contests if c.stage == "queue"]
        if rivals and (contest.goodput_per_s or 0.0) > _GOODPUT_MARGIN * max(rivals):
            course.best = contest.setting
    elif contest.stage != "final" and contest.rate_per_s > course.best_per_s:
        course.best, course.best_per_s = contest.setting, contest.rate_per_s


def _race(course: _Course, stand: TrialStand, trials: list[SloTrial], stage: str) -> float:
    def attempt(rate_per_s: float) -> Tried:
        trials.append(stand.attempt(rate_per_s, seed=course.options.seed + len(trials)))
        return trials[-1].tried

    if course.best_per_s and stage != "final":
        return race(attempt, start_per_s=course.best_per_s, best_per_s=course.best_per_s)
    start_per_s = course.best_per_s or _START_SHARE * look(stand).rate_per_s
    return race(attempt, start_per_s=start_per_s, best_per_s=0.0)


def _goodput(course: _Course, stand: TrialStand, trials: list[SloTrial]) -> float:
    """Answers within the goal, a second, when more is asked than can be done."""
    trial = stand.attempt(_OVERLOAD * course.best_per_s, seed=course.options.seed)
    trials.append(trial)
    good = sum(
        shot.status == OK and shot.latency_ms <= course.goal.p99_ms for shot in trial.run.shots
    )
    return good / trial.run.duration_s


def _stand(course: _Course, url: str, info: Mapping[str, Any]) -> TrialStand:
    options = course.options
    if course.texts is None:  # chosen, and told, once
        course.texts = choose_texts(options, info)
    return TrialStand(
        url=url,
        bodies=row_bodies(
            course.texts.rows,
            texts_per_call=options.texts_per_call,
            seed=options.seed,
            fresh=options.workload != REPEATED,
        ),
        goal=course.goal,
        trial_s=options.trial_s,
        warmup_s=options.warmup_s,
    )


def _refuse_impossible(options: TuneOptions) -> None:
    if not options.p99_ms > 0:
        raise ImpossibleOption(f"--p99-ms is {options.p99_ms:g}; a goal is above 0.")
    if not options.budget_minutes > 0 or not options.trial_s > 0 or options.warmup_s < 0:
        raise ImpossibleOption(
            "--budget-minutes and --trial-s must be above 0, and --warmup-s not below."
        )
    if options.write_config.exists():
        raise ImpossibleOption(
            f"{options.write_config} is there already; remove it or choose another --write-config."
        )
    if not (folder := options.write_config.absolute().parent).is_dir():
        raise ImpossibleOption(
            f"{folder}, where --write-config is to go, is no folder; make it or choose another."
        )


def _nothing_held(course: _Course) -> BenchmarkError:
    """Why there is no best: no server came up, or none kept the goal."""
    faults = [contest.fault for contest in course.contests if contest.fault]
    if len(faults) == len(course.contests) and not any(c.trials for c in course.contests):
        return ServerUnreachable(f"No setting could be tried: {faults[-1]}")
    return GoalUnreachable(
        f"No setting keeps a p99 of {course.goal.p99_ms:g} ms on these texts; give a higher --p99-ms."
    )


def _write_config(best: ServeSetting, options: TuneOptions) -> None:
    """Let serving write it: it knows what its file must say. Raises `ConfigNotWritten`."""
    command = [sys.executable, "-m", "miniml", "serve", best.package, *best.arguments]
    command += ["--port", str(options.port), "--write-config", str(options.write_config)]
    environment = {**os.environ, **best.environment}
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or "it printed nothing")[-_SAID_CHARS:]
        raise ConfigNotWritten(f"{options.write_config} was not written: {said}")
    _log.info("Wrote %s for %s; its head says how to serve it", options.write_config, best.name)


def _record(course: _Course, *, partial: bool) -> TuneRecord:
    options = course.options
    texts: dict[str, Any] = course.texts.document() if course.texts else {"workload": "none yet"}
    won = course.best is not None and not partial
    return TuneRecord(
        goal=course.goal,
        contests=course.contests,
        best=course.best,
        written=options.write_config if won else None,
        complete=course.complete,
        partial=partial,
        scenario={
            **texts,
            "texts_per_call": options.texts_per_call,
            "packages": list(options.package),
            "client": "wire",
            "arrivals": "poisson",
            "budget_minutes": options.budget_minutes,
            "trial_s": options.trial_s,
            "warmup_s": options.warmup_s,
            "seed": options.seed,
        },
    )
