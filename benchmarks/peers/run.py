"""`miniml bench peers`: ours beside what users would pick instead, in one interleaved run.

One server at a time, started anew each round, in an order that turns from round to round: an idle
Ray beside it would take a share of the cores, and what else the machine does hits all.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status

from benchmarks.artifacts import find_folder
from benchmarks.errors import ImpossibleOption, NoTexts
from benchmarks.options import PeersOptions
from benchmarks.peers.assets import Assets, fp32_labels, prepare
from benchmarks.peers.checking import LabelAgreement, check_labels
from benchmarks.peers.line_up import Peer, check_names, line_up
from benchmarks.peers.measuring import PeerLoad, measure
from benchmarks.peers.record import PeersRecord
from benchmarks.peers.running import running
from benchmarks.peers.runs import PeerRun
from benchmarks.record import default_path
from benchmarks.subject import about_package
from benchmarks.wire import Body
from benchmarks.workloads import WORKLOADS, call_bodies, read_rows
from serving.lanes import usable_cores
from serving.package import Package, open_package

_log = logging.getLogger(__name__)
_CHECKED_TEXTS = 64
_TEXTS = 512  # of each workload; a load goes round
_LEAST = {
    "rounds": 1,
    "connections": 1,
    "duration_s": 1.0,
    "search_s": 1.0,
    "search_steps": 0,
    "warmup_s": 0.0,
    "queries_goal_ms": 1.0,
    "reviews_goal_ms": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was seen so far; grows."""

    runs: list[PeerRun] = field(default_factory=list)
    agreement: dict[str, list[LabelAgreement]] = field(default_factory=dict)


def run_peers(options: PeersOptions) -> PeersRecord:
    """Make the models, then check and load each peer in each round, and write the record.

    Raises `BenchmarkError` with one sentence for what is missing, does not start or disagrees.
    """
    check_names(options.peers)
    _refuse_impossible(options)
    package = open_package(find_folder(options.package, "package"))
    lineage = package.manifest.lineage.get("checkpoint", "")
    checkpoint = find_folder(options.checkpoint or lineage, "checkpoint")
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="miniml-peers-") as folder,
        console.status("Making plain ONNX and int8 of the checkpoint") as status,
    ):
        assets = prepare(package, checkpoint, Path(folder))
        peers = line_up(assets, cores=usable_cores(), port=options.port, names=options.peers)
        seen, complete = _Seen(), False
        try:
            _measure_all(peers, assets, options, seen, status)
            complete = True
        finally:  # an interrupt does not throw away what was seen
            record = _record(package, peers, seen, options, complete=complete)
            if seen.runs:
                path = record.write(options.output or default_path("peers"))
                _log.info("The record with every sample is %s", path)
    return record


def _measure_all(
    peers: Sequence[Peer],
    assets: Assets,
    options: PeersOptions,
    seen: _Seen,
    status: Status,
) -> None:
    texts = _checked_texts(assets.checkpoint, options.seed)
    expected = fp32_labels(assets, texts)
    workloads = _workloads(options)
    goals_ms = _goals_ms(options)
    for round_, peer in turns(peers, options.rounds):
        status.update(f"round {round_ + 1} of {options.rounds}: {peer.name}")
        with running(peer, port=options.port, logs=assets.exported.parent) as url:
            agreement = check_labels(peer.name, url, texts, expected)
            seen.agreement.setdefault(peer.name, []).append(agreement)
            for workload, bodies in workloads.items():
                load = PeerLoad(
                    peer=peer.name,
                    workload=workload,
                    round=round_,
                    bodies=bodies,
                    goal_ms=goals_ms[workload],
                )
                for run in measure(url, load, options):
                    seen.runs.append(run)
                    _log.info("%s", run.line())


def _refuse_impossible(options: PeersOptions) -> None:
    """Raise `ImpossibleOption` for what could not be measured."""
    for name, least in _LEAST.items():
        given = getattr(options, name)
        if not given >= least:
            flag = name.replace("_", "-")
            raise ImpossibleOption(f"--{flag} {given:g} is too little; {least:g} is the least.")


def turns(peers: Sequence[Peer], rounds: int) -> Iterator[tuple[int, Peer]]:
    """Round and peer: every peer once a round, none always first."""
    for round_ in range(rounds):
        first = round_ % len(peers)
        yield from ((round_, peer) for peer in (*peers[first:], *peers[:first]))


def _checked_texts(checkpoint: Path, seed: int) -> list[str]:
    """Held-out texts of the checkpoint's own kind; reviews when it keeps none."""
    try:
        texts = [row["text"] for row in read_rows(checkpoint / "exam.jsonl")]
    except NoTexts:
        texts = WORKLOADS["reviews"](_CHECKED_TEXTS, seed)
    random.Random(seed).shuffle(texts)  # noqa: S311 - a workload, not a secret
    return texts[:_CHECKED_TEXTS]


def _workloads(options: PeersOptions) -> dict[str, list[Body]]:
    return {name: call_bodies(WORKLOADS[name](_TEXTS, options.seed)) for name in _goals_ms(options)}


def _goals_ms(options: PeersOptions) -> dict[str, float]:
    return {"queries": options.queries_goal_ms, "reviews": options.reviews_goal_ms}


def _record(
    package: Package,
    peers: Sequence[Peer],
    seen: _Seen,
    options: PeersOptions,
    *,
    complete: bool,
) -> PeersRecord:
    return PeersRecord(
        peers={peer.name: peer.about for peer in peers},
        agreement=seen.agreement,
        runs=seen.runs,
        goals_ms=_goals_ms(options),
        scenario={
            "cores": usable_cores(),
            "connections": options.connections,
            "rounds": options.rounds,
            "texts": _TEXTS,
            "duration_s": options.duration_s,
            "search_s": options.search_s,
            "search_steps": options.search_steps,
            "warmup_s": options.warmup_s,
            "seed": options.seed,
            "complete": complete,
            "servers": "one at a time, started anew each round",
        },
        package_digest=package.digest,
        precision=package.config.precision,
        package=about_package(package),
    )
