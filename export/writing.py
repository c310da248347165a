"""Fill a package folder: graph, tokenizer, config, gates, cost, golden answers, card."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import onnx
from tokenizers import Tokenizer

from export import checkpoint as source
from export.answers import Answers
from export.candidates import required_isa, runtime_options
from export.canonical import weigh
from export.card import model_card
from export.checkpoint import Checkpoint
from export.exam import Exam
from export.fp32 import graph_inputs
from export.judged import Judged
from export.machine import machine
from export.mix import described, exam_mix
from export.options import ExportOptions
from export.report import ExportReport, changed_rows, label_flips, render_export_report
from export.tuned import Tuned
from registry.artifact import Manifest
from serving.engine import Engine
from serving.lanes import Lanes, choose_lanes, measure_cost, usable_cores
from serving.package import (
    CARD,
    CONFIG,
    COST,
    EXAM_MIX,
    GATES,
    GOLDEN,
    MODEL,
    MODEL_DATA,
    REPORT,
    TOKENIZER,
    CostGrid,
    ExamMix,
    GoldenAnswer,
    Package,
    PackageConfig,
)

_log = logging.getLogger(__name__)
_GOLDEN_TEXTS = 16
_LARGE_BYTES = 2**20


class Tuner(Protocol):
    """What `export.tuned.tune` does, once its rows and options are given."""

    def __call__(self, engine: Engine, *, held_out: Answers) -> Tuned:
        """Fit on the training rows; *held_out* are the engine's answers to the exam."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What a package is called, and what it was made from."""

    name: str
    lineage: Mapping[str, str]


def write_package(  # noqa: PLR0913 - what a package is made of
    folder: Path,
    checkpoint: Checkpoint,
    exam: Exam,
    judged: Judged,
    *,
    naming: Naming,
    tuner: Tuner,
    options: ExportOptions,
) -> None:
    """Write every file of the package but its manifest into *folder*.

    Raises `EngineFailed` when the graph cannot run a text of max_length tokens, and what *tuner*
    and `weigh` raise.
    """
    _write_graph(judged.graph, folder)
    _write_tokenizer(checkpoint, folder)
    config = _config(folder, checkpoint, judged, naming.name, options.canonicalizer)
    lanes = choose_lanes(usable_cores())
    engine = _engine(folder, config, lanes)
    answers = judged.answers
    if config.canonicalizer is not None:
        answers, likeness = weigh(engine, exam, answers, options, lanes)
        judged = likeness.beside(judged)
    tuned = tuner(engine, held_out=answers)
    config = replace(config, temperature=tuned.temperature, thresholds=tuned.thresholds)
    (folder / CONFIG).write_bytes(config.to_bytes())
    document = {**judged.document(), **tuned.document()}
    gates = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / GATES).write_text(gates + "\n", encoding="utf-8")
    _log.info("Measuring ms over batch x length, up to %d tokens", config.max_length)
    cost = measure_cost(engine, machine=machine(), lanes=lanes)
    (folder / COST).write_bytes(cost.to_bytes())
    (folder / GOLDEN).write_text(_golden(engine, exam), encoding="utf-8")
    mix = exam_mix(answers.alone, _unsealed(folder, config))
    (folder / EXAM_MIX).write_bytes(mix.to_bytes())
    card = model_card(naming.name, checkpoint, judged, naming.lineage, mix)
    (folder / CARD).write_text(card, encoding="utf-8")
    page = render_export_report(_report(naming, checkpoint, exam, judged, document, mix))
    (folder / REPORT).write_text(page, encoding="utf-8")


def _write_graph(graph: Path, folder: Path) -> None:
    """The graph, its large constants in a file beside it.

    ONNX Runtime maps that file: of an embedding table only the rows in use are in memory, and
    replicas share them.
    """
    onnx.save_model(
        onnx.load(str(graph)),
        str(folder / MODEL),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=MODEL_DATA,
        size_threshold=_LARGE_BYTES,
    )
    if (folder / MODEL_DATA).exists():  # ONNX writes it for its owner alone
        shutil.copymode(folder / MODEL, folder / MODEL_DATA)


def _write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / source.TOKENIZER))
    tokenizer.no_padding()  # serving pads to the longest of the batch and cuts by max_length
    tokenizer.no_truncation()
    tokenizer.save(str(folder / TOKENIZER))


def _config(
    folder: Path, checkpoint: Checkpoint, judged: Judged, name: str, canonicalizer: str | None
) -> PackageConfig:
    """What serving must know, before anything is tuned."""
    return PackageConfig(
        name=name,
        task=checkpoint.task,
        text_pair=checkpoint.text_pair,
        labels=checkpoint.labels,
        max_length=checkpoint.max_length,
        pad_token_id=checkpoint.pad_token_id,
        inputs=graph_inputs(folder / MODEL),
        precision=judged.served.name,
        batch_invariant=judged.verdict.batch_invariant,
        base_model=checkpoint.base_model,
        runtime=judged.served.runtime,
        runtime_options=runtime_options(judged.served, checkpoint.hidden_size),
        isa=required_isa(judged.served),
        canonicalizer=canonicalizer,
    )


def _report(  # noqa: PLR0913, PLR0917 - what the page is made of
    naming: Naming,
    checkpoint: Checkpoint,
    exam: Exam,
    judged: Judged,
    document: Mapping[str, Any],
    mix: ExamMix,
) -> ExportReport:
    """The content of `export.html`."""
    fp32, served = judged.fp32_answers.alone, judged.answers.alone
    labels, task = checkpoint.labels, checkpoint.task
    return ExportReport(
        title=naming.name,
        document=document,
        changed=changed_rows(exam.rows[: len(served)], fp32, served, labels, task),
        label_flips=label_flips(fp32, served, labels, task),
        sensitivity=judged.sensitivity,
        facts={
            "Made from": dict(naming.lineage),
            "Answers on the exam": described(mix, labels),
            "Served by": {
                "runtime": judged.served.runtime,
                **runtime_options(judged.served, checkpoint.hidden_size),
                "CPU features": ", ".join(required_isa(judged.served)) or "none in particular",
            },
            **{
                f"Weights of {name}": {
                    key.replace("_", " "): str(value) for key, value in how.items()
                }
                for name, how in document["rounding"].items()
            },
            "Versions": dict(document["versions"]),
        },
    )


def _golden(engine: Engine, exam: Exam) -> str:
    """Texts spread over the exam's lengths, with this graph's logits, each asked alone."""
    by_length = sorted(exam.rows, key=lambda row: len(row.text))
    count = min(_GOLDEN_TEXTS, len(by_length))
    last = len(by_length) - 1
    chosen = [by_length[index * last // max(1, count - 1)] for index in range(count)]
    logits = engine.logits([row.text for row in chosen], [row.text_pair for row in chosen])
    answers = (
        GoldenAnswer(text=row.text, text_pair=row.text_pair, logits=tuple(map(float, values)))
        for row, values in zip(chosen, logits, strict=True)
    )
    return "".join(f"{answer.to_line()}\n" for answer in answers)


def _engine(folder: Path, config: PackageConfig, lanes: Lanes) -> Engine:
    """Of the package as far as it is written; whoever exports named the canonicaliser."""
    return Engine(
        _unsealed(folder, config),
        threads=lanes.threads,
        streams=lanes.count,
        allow_code=config.canonicalizer,
    )


def _unsealed(folder: Path, config: PackageConfig) -> Package:
    """The package as far as it is written: what the engine needs to run it."""
    return Package(
        folder=folder,
        manifest=Manifest(kind="package", files={}, lineage={}),
        config=config,
        cost=CostGrid(batches=(1,), lengths=(1,), ms=((0.0,),), threads=1, machine=""),
    )
