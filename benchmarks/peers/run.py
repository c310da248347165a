"""`miniml bench peers`: ours beside what users would pick instead, in one interleaved run.

One server at a time, started anew each round, in an order that turns from round to round: an idle
Ray beside it would take a share of the cores, and what else the machine does hits all. A peer that
cannot be installed, does not start or gives other answers is said so, and the run goes on.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.status import Status

from benchmarks.artifacts import find_folder
from benchmarks.errors import (
    ImpossibleOption,
    NoTexts,
    PeerDisagrees,
    PeerFailed,
    PeerNotInstalled,
)
from benchmarks.options import PeersOptions
from benchmarks.peers.assets import Assets, fp32_labels, prepare
from benchmarks.peers.checking import LabelAgreement, check_labels
from benchmarks.peers.environments import REQUIREMENTS, environment
from benchmarks.peers.line_up import OURS, check_names, chosen_apart, line_up
from benchmarks.peers.measuring import PeerLoad, measure
from benchmarks.peers.peer import Peer
from benchmarks.peers.record import PeersRecord
from benchmarks.peers.running import running
from benchmarks.peers.runs import PeerRun
from benchmarks.record import default_path
from benchmarks.subject import about_package
from benchmarks.wire import Body
from benchmarks.workloads import WORKLOADS, read_rows
from serving.lanes import usable_cores
from serving.package import Package, open_package

T = TypeVar("T")
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
    """What was seen so far; grows. missing: name -> why it was not measured, or not to the end."""

    runs: list[PeerRun] = field(default_factory=list)
    agreement: dict[str, list[LabelAgreement]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What every peer is asked: texts to be checked, with fp32's labels, and those of each workload."""

    checked: Sequence[str]
    expected: Sequence[str]
    workloads: Mapping[str, Sequence[str]]
    logs: Path


def run_peers(options: PeersOptions) -> PeersRecord:
    """Make environments and models, then check and load each peer in each round; write the record.

    Raises `BenchmarkError` with one sentence for what is missing, and when ours does not answer.
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
        seen, complete = _Seen(), False
        peers = line_up(
            assets,
            cores=usable_cores(),
            port=options.port,
            names=options.peers,
            environments=_environments(options.peers, seen, status),
        )
        if assets.no_int8:
            _log.warning("%s", assets.no_int8)
            without = [peer.name for peer in peers if peer.model == assets.quantized]
            seen.missing.update(dict.fromkeys(without, assets.no_int8))
        try:
            _measure_all(peers, _task(assets, options), options, seen, status)
            complete = True
        finally:  # an interrupt does not throw away what was seen
            record = _record(package, peers, seen, options, complete=complete)
            if seen.runs:
                path = record.write(options.output or default_path("peers"))
                _log.info("The record with every sample is %s", path)
    return record


def _environments(names: Sequence[str], seen: _Seen, status: Status) -> dict[str, Path]:
    """Name -> folder of the environment of each peer that wants one; who has none is noted."""
    folders = {}
    for name in chosen_apart(names):
        try:
            folders[name] = environment(name, REQUIREMENTS / f"{name}.txt", status.update)
        except PeerNotInstalled as error:
            _log.warning("%s", error)
            seen.missing[name] = str(error)
    return folders


def _task(assets: Assets, options: PeersOptions) -> _Task:
    checked = _checked_texts(assets.checkpoint, options.seed)
    return _Task(
        checked=checked,
        expected=fp32_labels(assets, checked),
        workloads={name: WORKLOADS[name](_TEXTS, options.seed) for name in _goals_ms(options)},
        logs=assets.exported.parent,
    )


def _measure_all(
    peers: Sequence[Peer], task: _Task, options: PeersOptions, seen: _Seen, status: Status
) -> None:
    for round_, peer in turns(peers, options.rounds):
        if peer.name in seen.missing:
            continue
        status.update(f"round {round_ + 1} of {options.rounds}: {peer.name}")
        try:
            _measure_one(peer, round_, task, options, seen)
        except (PeerFailed, PeerDisagrees) as error:
            if peer.name == OURS:
                raise
            _log.warning("%s", error)
            seen.missing[peer.name] = str(error)


def _measure_one(peer: Peer, round_: int, task: _Task, options: PeersOptions, seen: _Seen) -> None:
    goals_ms = _goals_ms(options)
    with running(peer, port=options.port, logs=task.logs) as server:
        agreement = check_labels(peer.name, server.url, task.checked, task.expected, peer.codec)
        seen.agreement.setdefault(peer.name, []).append(agreement)
        for workload, texts in task.workloads.items():
            load = PeerLoad(
                peer=peer.name,
                workload=workload,
                round=round_,
                bodies=[Body(content=peer.codec.encode(text), texts=1) for text in texts],
                goal_ms=goals_ms[workload],
                path=peer.codec.path,
            )
            for run in measure(server, load, options):
                seen.runs.append(run)
                _log.info("%s", run.line())


def _refuse_impossible(options: PeersOptions) -> None:
    """Raise `ImpossibleOption` for what could not be measured."""
    for name, least in _LEAST.items():
        given = getattr(options, name)
        if not given >= least:
            flag = name.replace("_", "-")
            raise ImpossibleOption(f"--{flag} {given:g} is too little; {least:g} is the least.")


def turns(those: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Round and one of *those*: each once a round, none always first."""
    for round_ in range(rounds):
        first = round_ % len(those) if those else 0
        yield from ((round_, one) for one in (*those[first:], *those[:first]))


def _checked_texts(checkpoint: Path, seed: int) -> list[str]:
    """Held-out texts of the checkpoint's own kind; reviews when it keeps none."""
    try:
        texts = [row["text"] for row in read_rows(checkpoint / "exam.jsonl")]
    except NoTexts:
        texts = WORKLOADS["reviews"](_CHECKED_TEXTS, seed)
    random.Random(seed).shuffle(texts)  # noqa: S311 - a workload, not a secret
    return texts[:_CHECKED_TEXTS]


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
        missing=seen.missing,
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
