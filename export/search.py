"""Make the candidates, screen and time them, then let the best by the objective sit the whole exam.

The first of them that passes is served; when none does, fp32 is. Every step runs in a process of its
own, and what is finished in the workshop is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from export.answers import Answers
from export.candidates import FP32, Candidate
from export.choice import Contender, ranked
from export.errors import ExportMismatch, RecipeUnfit
from export.exam import Exam
from export.gates import Verdict, judge_answers
from export.options import ExportOptions
from export.progress import SearchProgress
from export.recipes.compensated import ROUNDING
from export.recipes.mixed import SENSITIVITY
from export.speed import Speed, Timing, speed_of
from export.steps import run_step
from export.workshop import Workshop
from serving.session import Encoding

SCREEN_ROWS = 256
_FP32_MIXED_ROWS = 64  # company can change fp32 by rounding only; enough to see that
_COMPANY_COST = 3.25  # rows also asked in company, padded, and some again, against once alone
_INSTANT = 1e-9  # of a budget: what was answered in an earlier run costs nothing now
_ROUNDS = 3  # of timing, each over all who are still in: what else the machine does hits all alike
_ROUND_S = (0.5, 3.0)  # least and most for one candidate in one round
# Of the budget: for fp32's exam, for timing, until when candidates enter, and are timed again.
_FP32_SHARE, _TIMING_SHARE, _NEW_UNTIL, _ROUNDS_UNTIL = 0.25, 0.3, 0.6, 0.85


class Search:
    """One search; its results are read after `run`."""

    def __init__(
        self,
        workshop: Workshop,
        exam: Exam,
        encodings: Sequence[Encoding],
        options: ExportOptions,
        progress: SearchProgress,
    ) -> None:
        self._workshop, self._exam, self._options = workshop, exam, options
        self._lengths = [len(encoding) for encoding in encodings]
        self._progress = progress
        self._started_s = time.monotonic()
        self.exam_rows = len(encodings)
        self.answers: dict[str, Answers] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.timings: dict[str, list[Timing]] = {}
        self.failed: dict[str, str] = {}

    def run(self, candidates: Sequence[Candidate]) -> str:
        """Name of the candidate to serve; fp32 is among *candidates*.

        Raises `ExportMismatch` when fp32 itself is unfit.
        """
        self._round_s = self._seconds_a_round(len(candidates))
        self._enter_fp32()
        for candidate in candidates:
            if candidate.name != FP32:
                self._enter(candidate.name)
        for round_ in range(1, _ROUNDS):
            for name in self._eligible():
                if self._spent() < _ROUNDS_UNTIL:
                    self._time(name, round_)
        return next(name for name in self._by_objective() if self._passes(name))

    def speeds(self) -> Mapping[str, Speed]:
        """Of every candidate that was timed."""
        lanes = self._workshop.settings.lanes.count
        return {
            name: speed_of(
                timings, self._lengths, lanes=lanes, batched=self.verdicts[name].batch_invariant
            )
            for name, timings in self.timings.items()
        }

    def sensitivity(self) -> Mapping[str, float]:
        """Layer -> flips when it alone is int8; empty unless a recipe looked for it."""
        found: dict[str, float] = {}
        for path in self._workshop.folder.glob(f"*/{SENSITIVITY}"):
            found.update(json.loads(path.read_bytes()))
        return found

    def roundings(self) -> dict[str, dict[str, Any]]:
        """Name -> how its weights were rounded, of those whose recipe says."""
        paths = {name: self._workshop.graph(name).with_name(ROUNDING) for name in self.verdicts}
        return {n: json.loads(path.read_bytes()) for n, path in paths.items() if path.exists()}

    def _enter_fp32(self) -> None:
        """The yardstick: the whole exam, first, or as much of it as a share of the budget allows."""
        try:
            self._step(FP32, "make")
            first = min(_FP32_MIXED_ROWS, len(self._lengths))
            before = self._spent()
            self._answer(FP32, first)
            row_share = max(self._spent() - before, _INSTANT) / (_COMPANY_COST * first)
            affordable = max(int(_FP32_SHARE / row_share), self._options.min_exam_rows, first)
            self.exam_rows = min(len(self._lengths), affordable)
            self._answer(FP32, self.exam_rows, mixed_rows=0)
        except RecipeUnfit as error:
            raise ExportMismatch(
                f"The fp32 graph cannot be run: {error}; train it again."
            ) from error
        self._judge(FP32)
        if reasons := self.verdicts[FP32].reasons:
            raise ExportMismatch(
                f"The fp32 graph itself is unfit: {'; '.join(reasons)}; train it again."
            )
        self._time(FP32, 0)
        self._say(FP32)

    def _enter(self, name: str) -> None:
        """Make a candidate, screen it and time it once; what fails is noted and left."""
        if self._spent() > _NEW_UNTIL:
            budget = f"{self._options.budget_minutes:g} minutes"
            self.failed[name] = f"no time was left of the budget of {budget}"
            self._progress.skip()
            return
        try:
            self._step(name, "make")
            self._answer(name, min(SCREEN_ROWS, self.exam_rows))
            self._judge(name)
            self._time(name, 0)  # what fails, too: a reader weighs what a looser budget buys
            self._say(name)
        except RecipeUnfit as error:
            self._leave_out(name, str(error))
            self._progress.skip()

    def _leave_out(self, name: str, reason: str) -> None:
        """Forget a candidate but for why."""
        for found in (self.answers, self.verdicts, self.timings):
            found.pop(name, None)
        self.failed[name] = reason
        self._workshop.graph(name).unlink(missing_ok=True)
        self._progress.say(f"{name}: left out, {reason}")

    def _passes(self, name: str) -> bool:
        """Whether *name* passes the whole exam, asked to its end now."""
        if name != FP32:
            try:
                self._answer(name, self.exam_rows)
            except RecipeUnfit as error:  # it ran on the first rows; a later one broke it
                self._leave_out(name, str(error))
                return False
            self._judge(name)
            self._say(name)
        return self.verdicts[name].passed

    def _by_objective(self) -> list[str]:
        contenders = [
            Contender(
                name=name,
                texts_per_s=speed.texts_per_s,
                low=speed.texts_per_s_low,
                high=speed.texts_per_s_high,
                latency_ms=speed.latency_ms,
                model_bytes=self.verdicts[name].model_bytes,
                bit_equal=self.verdicts[name].batch_bit_equal,
            )
            for name, speed in self.speeds().items()
            if name != FP32 and not self._hopeless(name)
        ]
        return [*ranked(contenders, self._options.objective), FP32]

    def _eligible(self) -> list[str]:
        return [name for name in self.timings if not self._hopeless(name)]

    def _hopeless(self, name: str) -> bool:
        """Whether more rows cannot save it: broken, or its flips surely over the budget."""
        verdict = self.verdicts[name]
        whole = verdict.exam_rows == self.exam_rows
        surely = 100 * verdict.flip_interval[0] > self._options.max_flip_percent
        return bool(verdict.reasons) and (whole or surely or verdict.unsound)

    def _judge(self, name: str) -> None:
        self.verdicts[name] = judge_answers(
            name,
            self.answers[name],
            fp32=self.answers[FP32],
            exam=self._exam,
            options=self._options,
            model_bytes=self._workshop.graph(name).stat().st_size,
        )

    def _answer(self, name: str, stop: int, mixed_rows: int | None = None) -> None:
        """Have the rows answered up to *stop*, after those that are."""
        start = len(self.answers[name].alone) if name in self.answers else 0
        if start == stop:
            return
        path = self._workshop.answers(name, start, stop)
        if not path.exists():
            given = {"start": start, "stop": stop, "mixed": mixed_rows}
            self._step(name, "answer", given, rows=2 * (stop - start))
        more = Answers.load(path)
        self.answers[name] = self.answers[name].then(more) if start else more

    def _time(self, name: str, round_: int) -> None:
        path = self._workshop.timing(name, round_)
        if not path.exists():
            self._step(name, "time", {"round": round_, "budget_s": self._round_s})
        document: dict[str, Any] = json.loads(path.read_bytes())
        grid = tuple(tuple(row) for row in document["ms"])
        axes = {axis: tuple(document[axis]) for axis in ("batches", "lengths")}
        self.timings.setdefault(name, []).append(Timing(**{**document, **axes, "ms": grid}))

    def _step(
        self, name: str, step: str, given: dict[str, Any] | None = None, rows: int = 0
    ) -> None:
        if step == "make" and self._workshop.graph(name).exists():
            return
        if step == "make" and (unfit := self._workshop.unfit(name)).exists():
            raise RecipeUnfit(unfit.read_text(encoding="utf-8"))
        with self._progress.step(name, step, rows) as advance:
            run_step(self._workshop, name, step, given, advance)

    def _say(self, name: str) -> None:
        verdict, speed = self.verdicts[name], self.speeds()[name]
        self._progress.say(
            f"{name}: {speed.texts_per_s:.0f} texts/s, {100 * verdict.label_flip_rate:.2f} % flips"
            f" on {verdict.exam_rows} rows{', refused' if verdict.reasons else ''}"
        )

    def _seconds_a_round(self, candidates: int) -> float:
        share_s = _TIMING_SHARE * 60 * self._options.budget_minutes / (_ROUNDS * candidates)
        least_s, most_s = _ROUND_S
        return min(max(share_s, least_s), most_s)

    def _spent(self) -> float:
        """Share of the budget that is gone."""
        return (time.monotonic() - self._started_s) / (60 * self._options.budget_minutes)
