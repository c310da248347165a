"""`miniml bench demo`: serve a package, ask it, load it, and show what it is in one table.

The server is a `miniml serve` process of its own, reached over HTTP like any other, and is stopped
again whatever happens.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from benchmarks.errors import ServerUnreachable
from benchmarks.load import fetch_info, run_load
from benchmarks.options import DemoOptions, LoadOptions
from benchmarks.record import LoadRecord
from serving.client import Client

QUESTIONS = (
    "The waiter was rude, the soup was cold and we waited an hour for the bill. Never again.",
    "Parking was a pain and my room was small, though the bed was comfortable at least.",
    "It's fine. Does what it says, nothing to write home about.",
    "Lovely fabric and a flattering cut, I only wish the sleeves were a little longer.",
    "Best haircut I have had in years - Dana listened, took her time and got it exactly right!",
)
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0


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
            "load": self.load.summary(),
        }

    def __rich__(self) -> Group:
        """Two tables: the answers, and fp32 beside what is served."""
        return Group(_answers_table(self.answers), "", _closing_table(self.info, self.load))


def run_demo(options: DemoOptions) -> DemoResult:
    """Serve, ask the five questions, load, stop.

    Raises `ServerUnreachable` when the server does not become ready, and what `run_load` raises.
    """
    url = f"http://127.0.0.1:{options.port}"
    with _serving(options, url):
        client = Client(url)
        predictions = client.predict_many(list(QUESTIONS))
        info = fetch_info(url)
        load = run_load(
            LoadOptions(
                url=url,
                users=options.users,
                duration_s=options.duration_s,
                output=options.output,
            )
        )
    answers = tuple(
        {"text": text, **answer} for text, answer in zip(QUESTIONS, predictions, strict=True)
    )
    return DemoResult(answers=answers, info=info, load=load)


@contextmanager
def _serving(options: DemoOptions, url: str) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "miniml",
        "serve",
        options.package,
        "--port",
        str(options.port),
    ]
    process = subprocess.Popen(command)  # noqa: S603
    try:
        Client(url).wait_ready(timeout_s=_START_TIMEOUT_S, alive=lambda: process.poll() is None)
        if process.poll() is not None:
            raise ServerUnreachable("The server stopped before it was ready; it said why above.")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers_table(answers: tuple[Mapping[str, Any], ...]) -> Table:
    table = Table(title="Five reviews, asked over HTTP", title_justify="left")
    table.add_column("text", overflow="fold")
    table.add_column("label")
    table.add_column("score", justify="right")
    for answer in answers:
        table.add_row(answer["text"], str(answer["label"]), f"{answer['score']:.3f}")
    return table


def _closing_table(info: Mapping[str, Any], load: LoadRecord) -> Table:
    gates, numbers = info["gates"], load.summary()
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
