"""`miniml job summary`: what a job made, in Markdown; on GitHub at the end of the job's page."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.options import SummaryOptions
from registry.artifact import Manifest, verify

_CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was told, and where: a file, or None for standard output."""

    markdown: str
    file: Path | None

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {"markdown": self.markdown, "file": str(self.file) if self.file else None}

    def __rich__(self) -> str:
        """Nothing more: the text itself was written."""
        return f"Told in {self.file}" if self.file else ""


def summarise(options: SummaryOptions) -> Summary:
    """Verify the folder and tell of it. Raises a registry error for what is not sealed."""
    manifest = verify(options.folder)
    markdown = "\n".join(_lines(options.folder, manifest)) + "\n"
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(markdown)
    else:
        sys.stdout.write(markdown)
    return Summary(markdown=markdown, file=Path(place) if place else None)


def _lines(folder: Path, manifest: Manifest) -> Iterator[str]:
    yield f"## {manifest.kind} `{manifest.digest[:12]}`"
    yield ""
    tell = {"dataset": _dataset, "checkpoint": _checkpoint, "package": _package}[manifest.kind]
    yield from tell(folder)
    yield ""
    yield "| made from | |"
    yield "|---|---|"
    for key, value in sorted(manifest.lineage.items()):
        yield f"| {key} | `{_cell(value)}` |"
    yield f"| **digest** | `{manifest.digest}` |"
    yield f"| **size** | {manifest.total_bytes / 1e6:.1f} MB in {len(manifest.files)} files |"
    yield ""


def _dataset(folder: Path) -> Iterator[str]:
    told = json.loads((folder / "dataset.json").read_bytes())
    yield f"{told['name']}: {told['task']}, from {_cell(told['source'])}, seed {told['seed']}"
    yield ""
    yield "| label | train | test |"
    yield "|---|---|---|"
    counts = told["counts"]
    for label in told["labels"]:
        rows = [counts[split]["per_label"].get(label, 0) for split in ("train", "test")]
        yield f"| {_cell(label)} | {rows[0]:,} | {rows[1]:,} |"
    yield f"| **rows** | {counts['train']['rows']:,} | {counts['test']['rows']:,} |"
    dropped = {key: count for key, count in told["dropped"].items() if count}
    if dropped:
        yield ""
        yield "Dropped: " + ", ".join(f"{count:,} {key}" for key, count in dropped.items())


def _checkpoint(folder: Path) -> Iterator[str]:
    told = json.loads((folder / "training.json").read_bytes())
    yield (
        f"{_cell(told['base_model'])} on {_cell(told['dataset']['name'])}: {told['steps']:,} steps"
        f" in {told['wall_s']:.0f} s, the best at {told['best_step']:,}"
    )
    yield ""
    yield from _numbers(told["metrics"])
    yield ""
    yield "Curves and the hardest rows: `report.html` in the artifact."


def _package(folder: Path) -> Iterator[str]:
    # The card says what was measured and what the gates said; its title becomes one below ours.
    for line in (folder / _CARD).read_text(encoding="utf-8").splitlines():
        yield f"##{line}" if line.startswith("#") else line
    yield ""
    yield "All candidates: `export.html` in the artifact."


def _numbers(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "| metric | |"
    yield "|---|---|"
    for key, value in metrics.items():
        if isinstance(value, int | float):
            yield f"| {key} | {value:.4g} |"


def _cell(text: str) -> str:
    """*text* within a cell: it came from data, and may hold what Markdown or HTML reads."""
    return str(text).replace("|", "\\|").replace("`", "'").replace("<", "&lt;").replace("\n", " ")
