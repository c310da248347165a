"""What is known of a shadow: of one replica, of all, and as a table. Pure, and no text in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct
from rich.console import Group
from rich.table import Table

from serving.agreement import Agreed, Counts, InferTimes, Interval, OfLabel, said_by, together
from serving.rollout.wanted import PinnedShare

Standing = Literal["starting", "comparing", "restarting", "failed"]
# Why a text was left out: it had been compared just before; the candidate does not take it, as one that
# is too long for it and must not be cut; the candidate broke on it, or was down.
Reason = Literal["repeated", "refused", "failed"]
_MOST_PAIRS = 10


@dataclass(slots=True, kw_only=True)
class ShadowState:
    """Of one replica, since the candidate was put beside the champion; a request's texts count each.

    offered: of the requests in the share; each of them was compared (`counts`), dropped, there being too
    many that wait, left out, or it waits. trouble: why it stands so, where it does not compare.
    """

    champion: str
    candidate: PinnedShare
    standing: Standing
    trouble: str = ""
    offered: int = 0
    waiting: int = 0
    dropped: int = 0
    left_out: dict[Reason, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    @property
    def pair(self) -> tuple[str, str]:
        """The digests of both packages."""
        return self.champion, self.candidate.digest


class ShadowReport(Struct, frozen=True, kw_only=True):
    """Of all replicas: texts that were offered, what became of them, and how far the packages agree.

    champion, candidate: digests. package, share: as in `PinnedShare`. replicas: how many it is of, by how
    they stand; elsewhere: how many have another pair of packages just now, and are not in it.
    """

    package: str
    champion: str
    candidate: str
    share: float
    replicas: dict[Standing, int]
    elsewhere: int
    trouble: list[str]
    offered: int
    compared: int
    waiting: int
    dropped: int
    left_out: dict[Reason, int]
    agreed: Agreed


def reported(states: Sequence[ShadowState | None]) -> ShadowReport | None:
    """Of the candidate and champion that most replicas have side by side; None where none has any.

    states: None of a replica that has none.
    """
    pairs = Counter(state.pair for state in states if state)
    if not pairs:
        return None
    (pair, _), *_ = pairs.most_common(1)
    same = [state for state in states if state and state.pair == pair]
    first = same[0]
    left_out: Counter[Reason] = Counter()
    for state in same:
        left_out.update(state.left_out)
    counts = together(state.counts for state in same)
    return ShadowReport(
        package=first.candidate.package,
        champion=first.champion,
        candidate=first.candidate.digest,
        share=first.candidate.share,
        replicas=dict(Counter(state.standing for state in same)),
        elsewhere=len(states) - len(same),
        trouble=sorted({state.trouble for state in same if state.trouble}),
        offered=sum(state.offered for state in same),
        compared=counts.texts,
        waiting=sum(state.waiting for state in same),
        dropped=sum(state.dropped for state in same),
        left_out=dict(left_out),
        agreed=said_by(counts),
    )


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
