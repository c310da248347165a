"""What `miniml bench report` and `compare` can be told; light, as `benchmarks.options` is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """A page and tables of records: curves, throughput, tails, cost, and where each is from.

    [bold]miniml bench report --output bench.html[/]

    [bold]miniml bench report peers.json --keep --results docs/results.md[/]
    """

    records: tuple[str, ...] = field(
        default=(),
        metadata={"help": "JSON records; default: all that are kept.", "argument": "RECORDS"},
    )
    output: Path = field(default=Path("bench.html"), metadata={"help": "Where the page goes."})
    results: Path | None = field(
        default=None, metadata={"help": "Also write the tables as Markdown, there."}
    )
    kept: Path = field(
        default=Path("benchmarks/results"), metadata={"help": "Folder of the kept records."}
    )
    keep: bool = field(
        default=False,
        metadata={"help": "Keep RECORDS there, compressed, and report on all that are kept."},
    )
    newest: bool = field(
        default=False,
        metadata={
            "help": "Report instead on the newest of each kind below miniml's home, of the package"
            " measured last."
        },
    )
    usd_per_hour: float = field(
        default=1.0, metadata={"help": "Price of the machine, for $ a million texts."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Whether a record is better or worse than another, beyond chance; exit 1 when worse.

    [bold]miniml bench compare new.json --against old.json[/]
    """

    record: Path = field(metadata={"help": "The new record.", "argument": "RECORD"})
    against: Path = field(metadata={"help": "The old record."})
    tolerance_percent: float = field(
        default=5.0, metadata={"help": "A change must be beyond this, whole interval and all."}
    )
    anyway: bool = field(
        default=False, metadata={"help": "Compare although machine or scenario differ."}
    )
