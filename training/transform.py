"""`miniml transform`: raw rows -> a clean, split, sealed dataset.

Rows stream through twice: once from the source into an Arrow file of cleaned rows, once from there
into the splits. Between the two only 24 bytes a row and the labels are held in memory.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable

from registry import store
from registry.produce import Facts, produce, recipe_digest
from registry.version import Version
from training.arrow import CleanRows, write_split
from training.columns import ColumnPlan, label_name, plan_columns, row_labels
from training.dataset import INFO, SCHEMA_VERSION, DatasetInfo, Split, read_info
from training.errors import SourceError, TransformError
from training.formats import ReadOptions
from training.labels import Labels
from training.options import TransformOptions
from training.sources import Row, Source, content_sha256, find_sources, read_rows
from training.splitting import TEST, TRAIN, UNDECIDED, SplitDecision, decide

_log = logging.getLogger(__name__)
_SAMPLE_ROWS = 5000
_BAR_CELLS = 30
_NOT_IN_RECIPE = ("output", "reuse", "sources", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformResult:
    """The registered dataset, and what is in it."""

    version: Version
    folder: Path
    info: DatasetInfo
    reused: bool

    def document(self) -> dict[str, object]:
        """The version and `dataset.json`."""
        return {
            **self.version.document(),
            "folder": str(self.folder),
            "dataset": asdict(self.info),
            "reused": self.reused,
        }

    def __rich__(self) -> Group:
        """Rows, labels and lengths."""
        info = self.info
        said = " (unchanged, reused)" if self.reused else ""
        table = RichTable(title=f"Dataset {self.version.reference}{said}", title_justify="left")
        for name in ("label", "train", "test"):
            table.add_column(name, justify="left" if name == "label" else "right")
        table.add_column("share of train")
        train, test = info.counts["train"], info.counts["test"]
        most = max(train["per_label"].values(), default=1)
        for label in info.labels:
            count = train["per_label"].get(label, 0)
            bar = "█" * round(_BAR_CELLS * count / max(1, most))
            table.add_row(label, str(count), str(test["per_label"].get(label, 0)), bar)
        lengths = "  ".join(f"{name} {value:.0f}" for name, value in info.length_words.items())
        dropped = ", ".join(f"{n} {reason}" for reason, n in info.dropped.items() if n) or "none"
        return Group(
            table,
            f"rows     train {train['rows']}  test {test['rows']}   dropped: {dropped}",
            f"words    {lengths}",
        )


def transform(options: TransformOptions) -> TransformResult:
    """Read, clean, split, seal, register.

    Raises `TransformError` with one sentence for every foreseeable fault of the source.
    """
    if not 0 <= options.train_test_split_ratio < 1:
        raise TransformError("--train-test-split-ratio must be at least 0 and below 1.")
    sources = find_sources(options.sources)
    sha256 = content_sha256(sources)
    recipe = recipe_digest(
        {
            "schema_version": SCHEMA_VERSION,
            "content": sha256,
            "options": {k: v for k, v in asdict(options).items() if k not in _NOT_IN_RECIPE},
        }
    )
    if options.reuse and (found := store.find(kind="dataset", name=options.name, recipe=recipe)):
        folder = store.fetch(found)
        return TransformResult(version=found, folder=folder, info=read_info(folder), reused=True)
    version = produce(
        lambda folder: _build(folder, options, sources),
        kind="dataset",
        name=options.name,
        recipe=recipe,
        lineage={"source": ", ".join(options.sources), "source_sha256": sha256},
        output=options.output,
    )
    folder = store.fetch(version)
    return TransformResult(version=version, folder=folder, info=read_info(folder), reused=False)


def _build(folder: Path, options: TransformOptions, sources: list[Source]) -> Facts:
    """Fill *folder* with the splits and `dataset.json`."""
    wanted = (*options.text_columns, *options.label_columns)
    reading = ReadOptions(encoding=options.encoding, header=options.header, wanted=wanted)
    rows = ((source, row) for source in sources for row in read_rows(source, reading))
    sample = list(itertools.islice(rows, _SAMPLE_ROWS))
    plan = plan_columns(
        [_readable(source, row) for source, row in sample],
        text=options.text_columns,
        label=options.label_columns,
        delimiter=options.label_delimiter,
    )
    _say_plan(plan, options)
    with CleanRows(pair=len(plan.text) > 1) as clean:
        dropped = _ingest(itertools.chain(sample, rows), plan, clean)
        labels = Labels.of(clean.label_names, plan, options.labels)
        table = clean.table(labels)
        decision = decide(
            table,
            ratio=options.train_test_split_ratio,
            limit=options.limit,
            seed=options.seed,
            shuffle=options.shuffle,
        )
        dropped |= decision.dropped
        labels.check(clean, decision)
        info = _write(folder, options, plan, clean, labels, decision, dropped)
    (folder / INFO).write_bytes(info.to_bytes())
    return Facts(
        params={"task": info.task, "labels": len(info.labels), "seed": options.seed},
        metrics={f"{split}_rows": counts["rows"] for split, counts in info.counts.items()},
    )


def _ingest(
    rows: Iterator[tuple[Source, Row]], plan: ColumnPlan, clean: CleanRows
) -> dict[str, int]:
    """Put every usable row into *clean*; count the others by reason."""
    dropped: Counter[str] = Counter(empty_text=0, missing_label=0)
    given = {"train": TRAIN, "test": TEST, None: UNDECIDED}
    for source, row in rows:
        readable = _readable(source, row)
        texts = tuple(_clean_text(readable.get(column)) for column in plan.text)
        names = row_labels(readable, plan)
        if not all(texts):
            dropped["empty_text"] += 1
        elif names is None:
            dropped["missing_label"] += 1
        else:
            clean.add(texts, names, given[source.split])
    if not len(clean):
        raise SourceError("No row has both a text and a label; check the columns.")
    return dict(dropped)


def _write(  # noqa: PLR0913, PLR0917 - everything that a dataset is made of meets here
    folder: Path,
    options: TransformOptions,
    plan: ColumnPlan,
    clean: CleanRows,
    labels: Labels,
    decision: SplitDecision,
    dropped: dict[str, int],
) -> DatasetInfo:
    counts: dict[str, Any] = {}
    fingerprint = ""
    splits: tuple[tuple[Split, Any], ...] = (("train", decision.train), ("test", decision.test))
    for split, rows in splits:
        fingerprint = write_split(folder / split, clean, labels, rows, split, fingerprint)
        counts[split] = {"rows": len(rows), "per_label": labels.count(clean, rows)}
    words = clean.words[decision.train]
    percentiles = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return DatasetInfo(
        name=options.name,
        task="multi_label" if plan.multi_label else "single_label",
        text_pair=len(plan.text) > 1,
        columns={"text": plan.text, "label": plan.label},
        labels=labels.names,
        counts=counts,
        dropped=dropped,
        length_words={name: float(np.percentile(words, p)) for name, p in percentiles.items()},
        source=", ".join(options.sources),
        seed=options.seed,
        train_test_split_ratio=options.train_test_split_ratio,
        fingerprint=fingerprint,
    )


def _readable(source: Source, row: Row) -> Row:
    """*row* with class numbers turned into the names that a hub dataset knows for them."""
    if not source.names:
        return row
    named = dict(row)
    for column, names in source.names.items():
        value = row.get(column)
        if isinstance(value, int) and 0 <= value < len(names):
            named[column] = names[value]
    return named


def _clean_text(value: Any) -> str:
    """The text without white space at its ends and without NUL, which no tokenizer wants."""
    text = value if isinstance(value, str) else label_name(value)
    # A lone surrogate (from JSON's \\ud800) is no character and cannot be stored.
    return text.replace("\0", "").encode("utf-8", "replace").decode().strip()


def _say_plan(plan: ColumnPlan, options: TransformOptions) -> None:
    """Say what was inferred, so that a wrong guess is seen."""
    if not options.text_columns:
        _log.info("Text: column %s", " and ".join(map(repr, plan.text)))
    kinds = {
        "one": "one label a row",
        "flags": "multi-label, 0/1 columns",
        "list": "multi-label, lists",
        "delimited": f"multi-label, separated by {plan.delimiter!r}",
    }
    _log.info("Labels: column %s, %s", ", ".join(map(repr, plan.label)), kinds[plan.kind])
