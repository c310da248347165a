"""What is known of a shadow, as a table: for a terminal, so no replica imports it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table

from serving.agreement import Agreed, InferTimes, Interval, OfLabel
from serving.shadow.report import ShadowReport

_MOST_PAIRS = 10


def shown(report: ShadowReport) -> Group:
    """For people."""
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows.add_column(style="bold")
    rows.add_column()
    for name, words in _facts(report):
        rows.add_row(name, words)
    parts: list[Table | str] = [rows]
    if report.agreed.texts:
        parts += ["", _labels(report.agreed)]
    if report.agreed.disagreements:
        parts += ["", _pairs(report.agreed)]
    return Group(*parts)


def _facts(report: ShadowReport) -> Iterator[tuple[str, str]]:
    yield "candidate", f"{report.package} (package {report.candidate[:12]})"
    yield "champion", f"package {report.champion[:12]}"
    standing = ", ".join(f"{count} {name}" for name, count in report.replicas.items())
    yield "replicas", standing + (f"; {report.elsewhere} elsewhere" if report.elsewhere else "")
    for each in report.trouble:
        yield "trouble", each
    yield (
        "texts",
        (
            f"{report.offered:,} in {report.share:.4g} of the requests: {report.compared:,} compared,"
            f" {report.waiting:,} waiting, {report.dropped:,} dropped"
            + "".join(f", {count:,} {reason}" for reason, count in report.left_out.items() if count)
        ),
    )
    yield "agreement", _said(report.agreed.agreement)
    yield (
        "infer ms",
        (
            f"candidate {_times(report.agreed.candidate_infer_ms)},"
            f" champion {_times(report.agreed.champion_infer_ms)}"
        ),
    )


def _labels(agreed: Agreed) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("label", style="bold")
    for name in ("champion", "candidate", "agreement", "shift", "moved"):
        table.add_column(name, justify="right")
    for label in agreed.labels:
        table.add_row(
            *(label.label, f"{label.champion:,}", f"{label.candidate:,}", _said(label.agreement)),
            *_moves(label),
        )
    return table


def _moves(label: OfLabel) -> tuple[str, str]:
    if label.shift is None or label.moved is None:
        return "only one", "knows it"
    return f"{label.shift:+.4f}", f"{label.moved:.4f}"


def _pairs(agreed: Agreed) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("champion says", style="bold")
    table.add_column("candidate says", style="bold")
    table.add_column("texts", justify="right")
    for pair in agreed.disagreements[:_MOST_PAIRS]:
        table.add_row(pair.champion, pair.candidate, f"{pair.texts:,}")
    if more := agreed.disagreements[_MOST_PAIRS:]:
        table.add_row(f"{len(more)} more pairs", "", f"{sum(pair.texts for pair in more):,}")
    return table


def _said(share: Interval | None) -> str:
    if share is None:
        return "-"
    return f"{share.share:.2%} ({share.low:.2%} to {share.high:.2%})"


def _times(times: InferTimes) -> str:
    if times.p50 is None or times.p99 is None:
        return "-"
    return f"p50 {times.p50:.2f}, p99 {times.p99:.2f}"
