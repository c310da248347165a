"""`miniml bench engine`: a package beside the plain ways to run its checkpoint, text to answer.

Plain ONNX fp32, as optimum exports it, and the `transformers` pipeline in torch fp32. All in one
process, on as many threads, on the same texts, taking turns: what else the machine does hits all.
No server: what HTTP adds is what `miniml bench load` measures.
"""

from __future__ import annotations

import datetime as dt
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.artifacts import find_folder
from benchmarks.errors import BenchmarkError
from benchmarks.geometry import read_geometry
from benchmarks.options import EngineOptions
from benchmarks.peak import Peak, measure_int8_peak
from benchmarks.plain import MODEL, export_plain
from benchmarks.record import SCHEMA_VERSION, commit, machine, versions
from benchmarks.subject import about_package
from benchmarks.workloads import Row, read_rows
from serving.engine import Engine, TextTokenizer
from serving.package import Package, open_package
from serving.session import open_session

PACKAGE, PLAIN, PIPELINE = "package", "plain ONNX fp32", "transformers pipeline fp32"
Answer = Callable[[Sequence[Row]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """rates: backend -> texts/s of each round. gop_per_text: of the whole network, mean over texts.

    Everything shown is derived: medians, with the slowest and the fastest round beside them.
    """

    rates: Mapping[str, Sequence[float]]
    gop_per_text: float
    peak: Peak
    scenario: Mapping[str, Any]
    package_digest: str
    precision: str
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)
    recorded_at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    package: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "engine"
    schema_version: int = SCHEMA_VERSION

    def times(self, backend: str) -> float:
        """How many times as fast as *backend* the package is, by medians."""
        return statistics.median(self.rates[PACKAGE]) / statistics.median(self.rates[backend])

    def document(self) -> dict[str, object]:
        """Rates and what is derived from them."""
        gops = statistics.median(self.rates[PACKAGE]) * self.gop_per_text
        return {
            **asdict(self),
            "times_plain_onnx": round(self.times(PLAIN), 3),
            "times_pipeline": round(self.times(PIPELINE), 3),
            "package_gops": round(gops, 1),
            "package_share_of_peak": round(gops / self.peak.gops, 3),
        }

    def __rich__(self) -> Table:
        """A row for each backend."""
        threads = self.scenario["threads"]
        table = Table(
            title=f"{self.precision}, {threads} thread(s), {self.scenario['texts']} texts",
            title_justify="left",
            caption=f"int8 peak of {threads} thread(s): {self.peak.gops:.0f} GOP/s,"
            f" the {self.peak.how}.",
            caption_justify="left",
        )
        for name in ("backend", "texts/s", "slowest-fastest", "package is", "GOP/s", "of peak"):
            table.add_column(name, justify="left" if name == "backend" else "right")
        for backend, rates in self.rates.items():
            rate = statistics.median(rates)
            gops = rate * self.gop_per_text
            table.add_row(
                backend,
                f"{rate:.1f}",
                f"{min(rates):.1f}-{max(rates):.1f}",
                "" if backend == PACKAGE else f"{self.times(backend):.2f} x",
                f"{gops:.0f}",
                f"{100 * gops / self.peak.gops:.0f} %",
            )
        return table


def run_engines(options: EngineOptions) -> EngineRecord:
    """Measure. Raises `BenchmarkError` with one sentence for what is missing."""
    package = open_package(find_folder(options.package, "package"))
    checkpoint = find_folder(
        options.checkpoint or package.manifest.lineage.get("checkpoint", ""), "checkpoint"
    )
    rows = read_rows(options.texts or checkpoint / "exam.jsonl")
    random.Random(options.seed).shuffle(rows)  # noqa: S311 - a workload, not a secret
    rows = rows[: options.texts_count]
    with tempfile.TemporaryDirectory() as work:
        backends = _backends(package, checkpoint, options, Path(work))
        rates = _measure(backends, rows, options)
    tokenizer = TextTokenizer(package.tokenizer_path, max_length=package.config.max_length)
    lengths = [len(e) for e in tokenizer.encode(*_columns(rows))]
    return EngineRecord(
        rates=rates,
        gop_per_text=statistics.fmean(map(read_geometry(checkpoint).gop, lengths)),
        peak=measure_int8_peak(options.threads),
        scenario={
            "texts": len(rows),
            "mean_tokens": round(statistics.fmean(lengths), 1),
            "threads": options.threads,
            "batch": options.batch,
            "rounds": options.rounds,
            "seed": options.seed,
        },
        package_digest=package.digest,
        precision=package.config.precision,
        package=about_package(package),
    )


def _measure(
    backends: Mapping[str, Answer], rows: Sequence[Row], options: EngineOptions
) -> dict[str, list[float]]:
    """Texts/s of each backend in each round, after one that is not counted; they take turns."""
    batches = [rows[start : start + options.batch] for start in range(0, len(rows), options.batch)]
    rates: dict[str, list[float]] = {name: [] for name in backends}
    console = Console(stderr=True)
    for round_ in track(range(options.rounds + 1), "Rounds", console=console, transient=True):
        spent_s = dict.fromkeys(backends, 0.0)
        for batch in batches:
            for name, answer in backends.items():
                start_s = time.perf_counter()
                answer(batch)
                spent_s[name] += time.perf_counter() - start_s
        if round_:
            for name, seconds in spent_s.items():
                rates[name].append(round(len(rows) / seconds, 2))
    return rates


def _backends(
    package: Package, checkpoint: Path, options: EngineOptions, work: Path
) -> dict[str, Answer]:
    """Name -> a function from rows to answers, each on as many threads."""
    try:
        import torch
        from transformers import pipeline
    except ImportError as error:
        raise BenchmarkError(
            f"The peers are not installed ({error.name}); pip install 'miniml[export]'."
        ) from error
    torch.set_num_threads(options.threads)
    engine = Engine(package, threads=options.threads)
    plain = open_session(export_plain(checkpoint, work) / MODEL, threads=options.threads)
    tokenizer = engine.tokenizer
    pad = package.config.pad_token_id
    make_pipeline: Any = pipeline  # its 40 overloads say less than its page
    peer = make_pipeline(
        "text-classification",
        model=str(checkpoint),
        device="cpu",
        batch_size=options.batch,
        truncation=True,
        max_length=package.config.max_length,
    )
    return {
        PACKAGE: lambda rows: engine.run(tokenizer.encode(*_columns(rows))),
        PLAIN: lambda rows: plain.run(tokenizer.encode(*_columns(rows)), pad_token_id=pad),
        PIPELINE: lambda rows: peer([dict(row) for row in rows]),
    }


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
    pairs = [row["text_pair"] for row in rows if "text_pair" in row]
    return [row["text"] for row in rows], pairs or None
