"""What a run is about, read and checked before anything is started: packages, texts, grid."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.artifacts import find_folder
from benchmarks.backends.measures import Weights, grid_lengths, length_weights
from benchmarks.backends.models import BACKENDS
from benchmarks.backends.options import BackendsOptions
from benchmarks.errors import ImpossibleOption, NoTexts, PackageUnrelated
from benchmarks.workloads import WORKLOADS, Row, read_rows
from serving.engine import TextTokenizer
from serving.lanes import usable_cores
from serving.package import Package, PackageConfig, open_package
from serving.session import Encoding

_CHECKED_TEXTS = 128
_TEXTS = 512  # of each workload
_WORKLOADS = ("queries", "reviews")
_LEAST = {
    "cores": 0,
    "rounds": 1,
    "cell_s": 0.001,
    "connections": 1,
    "duration_s": 1.0,
    "warmup_s": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """packages: the first is the one that is asked for. checked: texts whose answers are compared.

    workloads: name -> texts. weights: name -> share of the texts at each length of the grid.
    """

    packages: tuple[Package, ...]
    checkpoint: Path
    backends: tuple[str, ...]
    cores: int
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    checked: tuple[Row, ...]
    encodings: tuple[Encoding, ...]
    workloads: Mapping[str, Sequence[Row]]
    weights: Mapping[str, Weights]

    @property
    def config(self) -> PackageConfig:
        """Of the package that is asked for."""
        return self.packages[0].config


def read_inputs(options: BackendsOptions) -> Inputs:
    """Raises `BenchmarkError` with one sentence for what cannot be."""
    batches, backends = _numbers(options.batches), _backends(options.only)
    for name, least in _LEAST.items():
        if not (given := getattr(options, name)) >= least:
            flag = name.replace("_", "-")
            raise ImpossibleOption(f"--{flag} {given:g} is too little; {least:g} is the least.")
    texts = read_rows(options.texts) if options.texts else None
    packages = _packages((options.package, *options.also))
    config = packages[0].config
    lineage = packages[0].manifest.lineage.get("checkpoint", "")
    checkpoint = find_folder(options.checkpoint or lineage, "checkpoint")
    workloads: dict[str, Sequence[Row]] = {"texts": texts} if texts else _made(options.seed)
    checked = _checked(checkpoint, workloads, options.seed)
    tokenizer = TextTokenizer(packages[0].tokenizer_path, max_length=config.max_length)
    lengths = grid_lengths(config.max_length)
    return Inputs(
        packages=packages,
        checkpoint=checkpoint,
        backends=backends,
        cores=options.cores or usable_cores(),
        batches=batches,
        lengths=lengths,
        checked=tuple(checked),
        encodings=tuple(_encode(tokenizer, checked)),
        workloads=workloads,
        weights={
            name: length_weights([len(e) for e in _encode(tokenizer, rows)], lengths)
            for name, rows in workloads.items()
        },
    )


def _packages(references: Sequence[str]) -> tuple[Package, ...]:
    """Opened; all answer the question that the first one answers."""
    packages = tuple(open_package(find_folder(name, "package")) for name in references)
    first = packages[0].config
    for reference, package in zip(references, packages, strict=True):
        config = package.config
        if (config.labels, config.task, config.max_length) != (
            *(first.labels, first.task, first.max_length),
        ):
            raise PackageUnrelated(
                f"Package {reference} has other labels, another task or another max_length than"
                f" {references[0]}; compare packages of one checkpoint."
            )
    return packages


def _backends(only: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in only.split(",")))) or BACKENDS
    if strange := set(names) - set(BACKENDS):
        raise ImpossibleOption(
            f"There is no backend {min(strange)!r}; the backends are {', '.join(BACKENDS)}."
        )
    return names


def _numbers(given: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(word) for word in given.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise ImpossibleOption(f"--batches {given!r} is not a list of numbers, as 1,8 is one.")
    return numbers


def _made(seed: int) -> dict[str, Sequence[Row]]:
    return {name: [{"text": t} for t in WORKLOADS[name](_TEXTS, seed)] for name in _WORKLOADS}


def _checked(checkpoint: Path, workloads: Mapping[str, Sequence[Row]], seed: int) -> Sequence[Row]:
    """Held-out texts of the checkpoint's own kind; some of the workload when it keeps none."""
    try:
        rows = read_rows(checkpoint / "exam.jsonl")
    except NoTexts:
        rows = [row for each in workloads.values() for row in each]
    random.Random(seed).shuffle(rows)  # noqa: S311 - a workload, not a secret
    return rows[:_CHECKED_TEXTS]


def _encode(tokenizer: TextTokenizer, rows: Sequence[Row]) -> list[Encoding]:
    pairs = [row.get("text_pair") for row in rows]
    return tokenizer.encode([row["text"] for row in rows], pairs if any(pairs) else None)
