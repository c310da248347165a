"""`miniml bench demo`: serve a package, ask it, load it, and show what it is in one table.

The server is a `miniml serve` process of its own, reached over HTTP like any other, and is stopped
again whatever happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from benchmarks.load import fetch_info, run_load
from benchmarks.load.record import LoadRecord, summary
from benchmarks.options import DemoOptions, LoadOptions
from benchmarks.server import serving
from serving.client import Client

QUESTIONS = (
    "The waiter was rude, the soup was cold and we waited an hour for the bill. Never again.",
    "Parking was a pain and my room was small, though the bed was comfortable at least.",
    "It's fine. Does what it says, nothing to write home about.",
    "Lovely fabric and a flattering cut, I only wish the sleeves were a little longer.",
    "Best haircut I have had in years - Dana listened, took her time and got it exactly right!",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The five answers, what the package says of itself, and the load record."""

    answers: tuple[Mapping[str, Any], ...]
    info: Mapping[str, Any]
    load: LoadRecord

    def document(self) -> dict[str, object]:
        """Answers, gates and the load summary."""
        return {
            "answers": [dict(answer) for answer in self.answers],
            "package_digest": self.info["package_digest"],
            "gates": self.info["gates"],
            "load": summary(self.load.run),
        }

    def __rich__(self) -> Group:
        """Two tables: the answers, and fp32 beside what is served."""
        return Group(_answers_table(self.answers), "", _closing_table(self.info, self.load))


def run_demo(options: DemoOptions) -> DemoResult:
    """Serve, ask the five questions, load, stop.

    Raises what `serving` and `run_load` raise.
    """
    with serving(options.package, port=options.port) as server:
        with Client(server.url) as client:
            predictions = client.predict_many(list(QUESTIONS))
        info = fetch_info(server.url)
        load = run_load(
            LoadOptions(
                url=server.url,
                workload="examples",
                users=options.users,
                duration_s=options.duration_s,
                output=options.output,
            )
        )
    answers = tuple(
        {"text": text, **answer} for text, answer in zip(QUESTIONS, predictions, strict=True)
    )
    return DemoResult(answers=answers, info=info, load=load)


def _answers_table(answers: tuple[Mapping[str, Any], ...]) -> Table:
    table = Table(title="Five reviews, asked over HTTP", title_justify="left")
    table.add_column("text", overflow="fold")
    table.add_column("label")
    table.add_column("score", justify="right")
    for answer in answers:
        table.add_row(answer["text"], str(answer["label"]), f"{answer['score']:.3f}")
    return table


def _closing_table(info: Mapping[str, Any], load: LoadRecord) -> Table:
    gates, numbers = info["gates"], summary(load.run)
    fp32, served = gates["fp32"], gates["served"]
    table = Table(title=f"Package {info['name']}, {info['precision']}", title_justify="left")
    table.add_column("")
    table.add_column("fp32", justify="right")
    table.add_column("served", justify="right")
    table.add_row("accuracy", f"{fp32['accuracy']:.3f}", f"{served['accuracy']:.3f}")
    table.add_row("macro-F1", f"{fp32['macro_f1']:.3f}", f"{served['macro_f1']:.3f}")
    table.add_row("label flips", "", f"{100 * gates['label_flip_rate']:.2f} %")
    table.add_row("size", _megabytes(fp32["model_bytes"]), _megabytes(served["model_bytes"]))
    users = f"{load.scenario['users']} users"
    table.add_row(f"p50 latency, {users}", "", f"{numbers['p50_ms']:.1f} ms")
    table.add_row(f"p99 latency, {users}", "", f"{numbers['p99_ms']:.1f} ms")
    table.add_row("rate", "", f"{numbers['texts_per_s']:.0f} texts/s")
    return table


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
