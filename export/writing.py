"""Fill a package folder: graph, tokenizer, config, gates, cost, golden answers, card."""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from export import checkpoint as source
from export.card import model_card
from export.checkpoint import Checkpoint
from export.exam import Exam
from export.fp32 import graph_inputs
from export.judging import Judged
from registry.artifact import Manifest
from serving.engine import Engine
from serving.lanes import measure_cost, usable_cores
from serving.package import (
    CARD,
    CONFIG,
    COST,
    GATES,
    GOLDEN,
    MODEL,
    TOKENIZER,
    CostGrid,
    GoldenAnswer,
    Package,
    PackageConfig,
)

_log = logging.getLogger(__name__)
_GOLDEN_TEXTS = 16


def write_package(  # noqa: PLR0913 - what a package is made of
    folder: Path,
    checkpoint: Checkpoint,
    exam: Exam,
    judged: Judged,
    *,
    name: str,
    lineage: Mapping[str, str],
) -> None:
    """Write every file of the package but its manifest into *folder*.

    Raises `EngineFailed` when the graph cannot run a text of max_length tokens.
    """
    shutil.copyfile(judged.graph, folder / MODEL)
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / source.TOKENIZER))
    tokenizer.no_padding()  # serving pads to the longest of the batch and cuts by max_length
    tokenizer.no_truncation()
    tokenizer.save(str(folder / TOKENIZER))
    config = PackageConfig(
        name=name,
        task=checkpoint.task,
        text_pair=checkpoint.text_pair,
        labels=checkpoint.labels,
        max_length=checkpoint.max_length,
        pad_token_id=checkpoint.pad_token_id,
        inputs=graph_inputs(folder / MODEL),
        precision=judged.served.name,
        batch_invariant=judged.served.batch_invariant,
        base_model=checkpoint.base_model,
    )
    (folder / CONFIG).write_bytes(config.to_bytes())
    gates = json.dumps(judged.document(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / GATES).write_text(gates + "\n", encoding="utf-8")
    engine = Engine(_unsealed(folder, config))
    _log.info("Measuring ms over batch x length, up to %d tokens", config.max_length)
    (folder / COST).write_bytes(measure_cost(engine, machine=machine()).to_bytes())
    (folder / GOLDEN).write_text(_golden(engine, exam), encoding="utf-8")
    card = model_card(name, checkpoint, judged, lineage)
    (folder / CARD).write_text(card, encoding="utf-8")


def machine() -> str:
    """CPU model, architecture and usable cores, for people."""
    return f"{_cpu()}, {platform.system()} {platform.machine()}, {usable_cores()} cores"


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


def _unsealed(folder: Path, config: PackageConfig) -> Package:
    """The package as far as it is written: what the engine needs to run it."""
    return Package(
        folder=folder,
        manifest=Manifest(kind="package", files={}, lineage={}),
        config=config,
        cost=CostGrid(batches=(1,), lengths=(1,), ms=((0.0,),), threads=1, machine=""),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "CPU")
