"""`miniml bench peers`: ours beside others, a closed loop and a search for each in every round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bisection import highest_held
from benchmarks.peers.checking import LabelAgreement
from benchmarks.peers.line_up import OURS
from benchmarks.peers.runs import PeerRun, ServerCost
from benchmarks.report.findings import (
    Curve,
    Finding,
    Findings,
    Trial,
    number_of_samples,
)
from benchmarks.report.numbers import counted
from benchmarks.wire import Shot, WireRun

_PERCENT = 99.0


def peers_findings(document: Mapping[str, Any]) -> Findings:
    """For each peer and workload: the closed loop, the highest rate in the goal, and the curve."""
    found: list[Finding] = []
    curves: list[Curve] = []
    runs = [read_run(row) for row in document["runs"]]
    for workload, goal_ms in document["goals_ms"].items():
        for peer in document["peers"]:
            of_peer = [run for run in runs if (run.peer, run.workload) == (peer, workload)]
            closed = [run for run in of_peer if run.rate_per_s is None]
            opened = [run for run in of_peer if run.rate_per_s is not None]
            agreement = _agreement(document["agreement"].get(peer, ()))
            if closed:
                connections = document["scenario"]["connections"]
                ours = peer == OURS
                found.append(closed_finding(closed, connections, agreement, ours=ours))
            if opened:
                curve = _curve(opened, goal_ms)
                curves.append(curve)
                found.append(_within_goal(curve, agreement))
    return Findings(
        findings=tuple(found),
        curves=tuple(curves),
        missing={
            (loop, peer): why
            for peer, why in document.get("missing", {}).items()
            for loop in ("closed", "open")
        },
        samples=number_of_samples(found, curves),
    )


def read_run(row: Mapping[str, Any]) -> PeerRun:
    """One load, as `PeerRun.document` wrote it."""

    def shots(rows: Sequence[Sequence[float]]) -> tuple[Shot, ...]:
        return tuple(
            Shot(sent_s=sent_s, latency_ms=ms, status=int(status), texts=1)
            for sent_s, ms, status, *_ in rows
        )

    seen, early = shots(row["samples"]), shots(row["answered_after_warmup"])
    wire = WireRun(
        shots=seen,
        early=early,
        warmup_s=row["warmup_s"],
        duration_s=row["duration_s"],
        requests=row.get("requests", len(seen) + len(early)),
        load_s=row["load_s"],
        client_cpu_s=row["client_cpu_s"],
    )
    return PeerRun(
        peer=row["peer"],
        workload=row["workload"],
        round=row["round"],
        rate_per_s=row["rate_per_s"],
        wire=wire,
        cost=_cost(row),
    )


def _cost(row: Mapping[str, Any]) -> ServerCost | None:
    """None where it was not looked at, as in older records."""
    if row.get("server_cpu_s") is None:
        return None
    return ServerCost(cpu_s=row["server_cpu_s"], pss_bytes=row["server_pss_bytes"])


def _trial(run: PeerRun, *, goal_ms: float | None = None) -> Trial:
    shots = run.wire.shots
    return Trial(
        round=run.round,
        rate_per_s=run.rate_per_s,
        begin_s=run.wire.warmup_s,
        duration_s=run.wire.duration_s,
        texts_per_s=run.texts_per_s,
        sent_s=tuple(shot.sent_s for shot in shots),
        latencies_ms=tuple(shot.latency_ms for shot in shots),
        statuses=tuple(shot.status for shot in shots),
        held=None if goal_ms is None else run.tried(goal_ms).held,
    )


def closed_finding(
    runs: Sequence[PeerRun], connections: int, agreement: LabelAgreement | None, *, ours: bool
) -> Finding:
    """The closed loops of one peer and workload, one a round."""
    first = runs[0]
    bound = sum(run.client_bound for run in runs)
    return Finding(
        system=first.peer,
        workload=first.workload,
        loop="closed",
        setting=counted(connections, "connection"),
        rates=tuple(run.texts_per_s for run in runs),
        trials=tuple(_trial(run) for run in runs),
        agreement=agreement,
        cpu_ms=tuple(ms for run in runs if (ms := run.server_cpu_ms_per_request) is not None),
        server_memory_mb=max((run.cost.pss_bytes / 1e6 for run in runs if run.cost), default=None),
        ours=ours,
        note=f"{counted(bound, 'run')} bound by the client" if bound else "",
    )


def _curve(runs: Sequence[PeerRun], goal_ms: float) -> Curve:
    rounds = sorted({run.round for run in runs})
    return Curve(
        system=runs[0].peer,
        workload=runs[0].workload,
        goal_ms=goal_ms,
        percent=_PERCENT,
        trials=tuple(_trial(run, goal_ms=goal_ms) for run in runs),
        highest=tuple(
            highest_held([run.tried(goal_ms) for run in runs if run.round == round_])
            for round_ in rounds
        ),
        ours=runs[0].peer == OURS,
    )


def _within_goal(curve: Curve, agreement: LabelAgreement | None) -> Finding:
    """The highest rate of each round, with the samples of the trials at it."""
    rounds = sorted({trial.round for trial in curve.trials})
    highest = dict(zip(rounds, curve.highest, strict=True))
    return Finding(
        system=curve.system,
        workload=curve.workload,
        loop="open",
        setting=f"p{curve.percent:g} within {curve.goal_ms:g} ms",
        rates=curve.highest,
        trials=tuple(t for t in curve.trials if t.held and t.rate_per_s == highest[t.round]),
        agreement=agreement,
        goal_ms=curve.goal_ms,
        ours=curve.ours,
    )


def _agreement(checks: Sequence[Mapping[str, int]]) -> LabelAgreement | None:
    if not checks:
        return None
    return LabelAgreement(
        agreed=sum(check["agreed"] for check in checks),
        asked=sum(check["asked"] for check in checks),
    )
