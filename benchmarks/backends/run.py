"""`miniml bench backends`: probe, make graphs, check answers, measure in interleaved rounds.

Every measurement is a fresh process with the same cores; what cannot run is a line that says why.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks.backends.http import measure_servers
from benchmarks.backends.inputs import Inputs, read_inputs
from benchmarks.backends.measures import agreement
from benchmarks.backends.models import YARDSTICK, line_up, make_graphs
from benchmarks.backends.options import BackendsOptions
from benchmarks.backends.processes import ask_worker
from benchmarks.backends.record import BackendsRecord
from benchmarks.backends.seen import Seen
from benchmarks.backends.speeds import GridRun
from benchmarks.backends.tables import ceiling_lines
from benchmarks.backends.variant import Layout, LoadJob, Variant, layouts
from benchmarks.errors import BenchmarkError, EngineBroke, PeerUnsuited
from benchmarks.geometry import read_geometry
from benchmarks.peers.run import turns
from benchmarks.record import default_path
from benchmarks.subject import about_package
from serving.session import Logits

_log = logging.getLogger(__name__)


def run_backends(options: BackendsOptions) -> BackendsRecord:
    """Measure and write the record.

    Raises `BenchmarkError` with one sentence for what is wrong, and when torch cannot answer.
    """
    inputs = read_inputs(options)
    if options.http and (inputs.config.task != "single_label" or inputs.config.text_pair):
        raise PeerUnsuited("--http gives one label to one text, which this package does not.")
    with (
        tempfile.TemporaryDirectory(prefix="miniml-backends-") as folder,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        variants = line_up(inputs.checkpoint, inputs.packages, Path(folder))
        bench = _Bench(inputs, options, variants, Path(folder), progress)
        complete = False
        try:
            bench.run()
            complete = True
        finally:  # an interrupt does not throw away what was seen
            record = bench.record(complete=complete)
            if record.runs:
                path = record.write(options.output or default_path("backends"))
                _log.info("The record with every sample is %s", path)
    return record


class _Bench:
    """One run: its inputs, what was seen, and how far it is."""

    def __init__(
        self,
        inputs: Inputs,
        options: BackendsOptions,
        variants: Sequence[Variant],
        work: Path,
        progress: Progress,
    ) -> None:
        self._inputs = inputs
        self._options = options
        self._all = variants
        self._variants = [v for v in variants if v.backend in inputs.backends]
        self._work = work
        self._progress = progress
        self._task: TaskID = progress.add_task("Looking for backends", total=None)
        self._seen = Seen()
        self._labels: list[str] = []

    def run(self) -> None:
        """Everything, in order."""
        self._probe()
        self._say("Making graphs of the checkpoint")
        self._make_graphs()
        self._say("Measuring what the hardware can do")
        self._seen.peaks.update(ask_worker("peaks", threads=self._inputs.cores))
        geometry, weights = read_geometry(self._inputs.checkpoint), self._inputs.weights
        for line in ceiling_lines(self._seen.peaks, geometry, weights, self._inputs.batches):
            _log.info("%s", line)
        self._check_answers()
        self._measure()
        if self._options.http:
            served = self._present()
            self._say("Servers", total=len(served) * self._options.rounds)
            for said in measure_servers(
                served,
                self._inputs,
                self._options,
                labels=self._labels,
                seen=self._seen,
                logs=self._work,
            ):
                self._say(said, advance=1)

    def record(self, *, complete: bool) -> BackendsRecord:
        """Of what was seen so far."""
        inputs, options, seen = self._inputs, self._options, self._seen
        return BackendsRecord(
            variants=self._variants,
            missing=seen.missing,
            answers=seen.answers,
            runs=seen.runs,
            weights=inputs.weights,
            batches=inputs.batches,
            geometry=read_geometry(inputs.checkpoint),
            peaks=seen.peaks,
            http_runs=seen.http_runs,
            http_missing=seen.http_missing,
            scenario={
                "cores": inputs.cores,
                "rounds": options.rounds,
                "cell_s": options.cell_s,
                "connections": options.connections,
                "duration_s": options.duration_s,
                "warmup_s": options.warmup_s,
                "seed": options.seed,
                "checked_texts": len(inputs.checked),
                "yardstick": YARDSTICK,
                "complete": complete,
                "processes": "a fresh one for each variant, layout and round",
            },
            package_digest=inputs.packages[0].digest,
            precision=inputs.config.precision,
            package=about_package(inputs.packages[0]),
        )

    def _probe(self) -> None:
        wanted = [[variant.backend, variant.precision] for variant in self._variants]
        reasons = ask_worker("probe", wanted=wanted)["reasons"]
        for variant, reason in zip(self._variants, reasons, strict=True):
            if reason is not None:
                self._seen.miss(variant, reason)

    def _make_graphs(self) -> None:
        failed = make_graphs(self._inputs.checkpoint, self._present(), self._work)
        for variant in self._present():
            if reason := failed.get(str(variant.model)):
                self._seen.miss(variant, reason)

    def _check_answers(self) -> None:
        """fp32 first: whose answers are right by definition."""
        (yardstick,) = (variant for variant in self._all if variant.name == YARDSTICK)
        self._say(f"Answers: {YARDSTICK}", total=len(self._present()) + 1)
        try:
            expected = self._ask(yardstick)[0]
        except EngineBroke as error:
            raise BenchmarkError(
                f"{YARDSTICK}, which all answers are compared with, cannot run: {error}; is"
                " 'miniml[training]' installed?"
            ) from error
        labels = self._inputs.config.labels
        self._labels = [labels[int(row.argmax())] for row in expected]
        for variant in self._present():
            self._say(f"Answers: {variant.name}", advance=1)
            try:
                alone, together = self._ask(variant)
            except EngineBroke as error:
                self._seen.miss(variant, str(error))
                continue
            found = agreement(expected, alone, together, self._inputs.config.task)
            self._seen.answers[variant.name] = found

    def _ask(self, variant: Variant) -> tuple[Logits, Logits]:
        encodings = [[list(e.ids), list(e.type_ids)] for e in self._inputs.encodings]
        cores = self._inputs.cores
        job = self._job(variant, Layout(lanes=1, threads=cores))
        found = ask_worker("answers", threads=cores, encodings=encodings, **job)
        alone, together = (np.array(found[key], np.float32) for key in ("alone", "together"))
        return alone, together

    def _measure(self) -> None:
        """Rounds over every variant on every layout, none always first."""
        pairs = [
            (variant, layout)
            for variant in self._present()
            for layout in layouts(self._inputs.cores, on_gpu=variant.on_gpu)
        ]
        self._say("Engines", total=len(pairs) * self._options.rounds)
        for round_, (variant, layout) in turns(pairs, self._options.rounds):
            self._say(f"Round {round_ + 1}: {variant.name}, {layout}")
            if variant.name not in self._seen.missing:
                self._measure_one(variant, layout, round_)
            self._progress.advance(self._task)

    def _measure_one(self, variant: Variant, layout: Layout, round_: int) -> None:
        try:
            seen = ask_worker(
                "grid",
                threads=layout.threads,
                batches=self._inputs.batches,
                lengths=self._inputs.lengths,
                cell_s=self._options.cell_s,
                **self._job(variant, layout),
            )
        except EngineBroke as error:
            self._seen.miss(variant, str(error))
        else:
            self._seen.runs.append(GridRun.of(variant.name, layout, round_, seen))

    def _job(self, variant: Variant, layout: Layout) -> dict[str, Any]:
        config = self._inputs.config
        job = LoadJob.of(
            variant, layout, pad_token_id=config.pad_token_id, max_length=config.max_length
        )
        return {"backend": variant.backend, "load": job.document()}

    def _present(self) -> list[Variant]:
        return [v for v in self._variants if v.name not in self._seen.missing]

    def _say(self, what: str, *, total: int | None = None, advance: int = 0) -> None:
        if total is not None:
            self._progress.reset(self._task, total=total)
        self._progress.update(self._task, description=what, advance=advance)
