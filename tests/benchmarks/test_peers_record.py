"""What `bench peers` shows is derived from its samples: medians, ratios, the rate that held."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.options import PeersOptions
from benchmarks.peers import measuring
from benchmarks.peers.checking import LabelAgreement
from benchmarks.peers.line_up import NAMES, OURS, PLAIN_FASTAPI, PROTOTYPE
from benchmarks.peers.measuring import PeerLoad, measure
from benchmarks.peers.record import PeersRecord
from benchmarks.peers.runs import PeerRun, ServerCost
from benchmarks.report.kinds.peers import read_run
from benchmarks.server import RunningServer
from benchmarks.wire import Shot, WireRun

GOAL_MS = 100.0
COST_KEYS = ("requests", "server_cpu_s", "server_pss_bytes")


def wire(count: int, *, latency_ms: float = 10.0, failed: int = 0, cpu_s: float = 0.1) -> WireRun:
    """A second with *count* answers of the same latency, and *failed* refusals."""
    shots = [
        Shot(sent_s=index / 1e4, latency_ms=latency_ms, status=200, texts=1)
        for index in range(count)
    ]
    shots += [Shot(sent_s=0.5, latency_ms=1.0, status=503, texts=1) for _ in range(failed)]
    return WireRun(
        shots=tuple(shots), duration_s=1.0, requests=len(shots), load_s=1.0, client_cpu_s=cpu_s
    )


def run(peer: str, round_: int, seen: WireRun, rate_per_s: float | None = None) -> PeerRun:
    """A run on queries."""
    return PeerRun(peer=peer, workload="queries", round=round_, rate_per_s=rate_per_s, wire=seen)


def record(runs: Sequence[PeerRun]) -> PeersRecord:
    """Of queries only; everybody agrees with fp32."""
    return PeersRecord(
        peers=dict.fromkeys(NAMES, "a server"),
        agreement={name: [LabelAgreement(agreed=63, asked=64)] for name in NAMES},
        runs=runs,
        goals_ms={"queries": GOAL_MS},
        scenario={"cores": 2, "connections": 32, "rounds": 3, "seed": 0},
        package_digest="d" * 64,
        precision="int8-row-wise",
    )


@pytest.fixture
def seen() -> PeersRecord:
    """Ours at 60 texts/s but for one slow round, the prototype at 5 and plain FastAPI at 40."""
    counts = {OURS: (60, 2, 62), PROTOTYPE: (5, 5, 5), PLAIN_FASTAPI: (40, 41, 30)}
    runs = [
        run(peer, round_, wire(count, failed=peer == PLAIN_FASTAPI))
        for peer, each in counts.items()
        for round_, count in enumerate(each)
    ]
    for round_ in range(3):
        runs += [
            run(OURS, round_, wire(20), 20.0),
            run(OURS, round_, wire(30, latency_ms=101.0), 30.0),
            run(OURS, round_, wire(24), 24.0),
            run(PROTOTYPE, round_, wire(4), 4.0),
            run(PLAIN_FASTAPI, round_, wire(4, failed=1), 4.0),
        ]
    return record(runs)


def test_ratios_are_of_medians(seen: PeersRecord) -> None:
    """One slow round moves nothing; a peer whose rate never held has no ratio."""
    ours, prototype = seen.summary(OURS, "queries"), seen.summary(PROTOTYPE, "queries")
    plain = seen.summary(PLAIN_FASTAPI, "queries")

    assert (ours["texts_per_s"], prototype["times_texts_per_s"]) == (60.0, 12.0)
    assert plain["times_texts_per_s"] == 1.5
    assert seen.rates(OURS, "queries") == [24.0, 24.0, 24.0]
    assert prototype["times_rate_in_goal"] == 6.0
    assert (plain["rate_in_goal_per_s"], plain["times_rate_in_goal"]) == (0.0, None)
    assert plain["errors"] == 3


def test_the_record_holds_what_it_shows(seen: PeersRecord, tmp_path: Path) -> None:
    """From the file's samples alone come its rates; goals stand beside the ratios."""
    document = json.loads(seen.write(tmp_path / "deep" / "record.json").read_text())
    first = document["runs"][0]

    assert len(document["runs"]) == len(seen.runs)
    assert (
        len(first["samples"]) / first["duration_s"]
        == document["summary"]["queries"][OURS]["texts_per_s"]
    )
    assert document["texts_goals"]["queries"][PROTOTYPE] == 12.0
    assert document["agreement"][OURS] == [{"agreed": 63, "asked": 64}]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["record.json"]


def test_tables_show_ratios_beside_their_goals(seen: PeersRecord) -> None:
    """In 80 columns: ours over each, the goal, and who did not answer everything."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(seen)
    lines = captured.get().splitlines()
    (closed, rates) = (
        line for line in lines if line.startswith(f"│ {PROTOTYPE}") and " x " in line
    )

    assert "12.00 x" in closed
    assert "12 x" in closed.replace("12.00 x", "")
    assert "6.00 x" in rates
    assert f"{PLAIN_FASTAPI}: 3 error(s)" in captured.get()
    assert "…" not in captured.get()


def test_tables_say_who_is_missing(seen: PeersRecord) -> None:
    """By name with the reason, whether it was never installed or failed on the way."""
    reasons = {"infinity": "no such wheel [cpu]", PROTOTYPE: "it stopped"}
    peers = {name: about for name, about in seen.peers.items() if name != "infinity"}
    partial = replace(seen, peers=peers, missing=reasons)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(partial)

    assert "(no such wheel [cpu])" in captured.get()
    assert "a server (it stopped)" in captured.get()
    assert json.loads(json.dumps(partial.document()))["missing"] == reasons


def test_what_a_load_cost_survives_its_record(seen: PeersRecord) -> None:
    """CPU time a request and memory are read as they were written, and not where nobody looked."""
    before = replace(seen.runs[0], cost=ServerCost(cpu_s=0.12, pss_bytes=5_000_000))
    after = read_run(json.loads(json.dumps(before.document())))

    assert after.cost == before.cost
    assert after.server_cpu_ms_per_request == before.server_cpu_ms_per_request == 2.0
    assert read_run(seen.runs[0].document()).server_cpu_ms_per_request is None
    older = {k: v for k, v in before.document().items() if k not in COST_KEYS}
    assert read_run(older) == read_run(seen.runs[0].document())


def test_costs_stand_beside_ours(seen: PeersRecord) -> None:
    """In 80 columns: CPU ms a request by medians, how many times ours, and the most memory."""
    cpu_s, pss_bytes = {OURS: 2e-3, PROTOTYPE: 50e-3}, {OURS: 900e6, PROTOTYPE: 1200e6}
    runs = [
        replace(
            one,
            cost=ServerCost(
                cpu_s=cpu_s[one.peer] * one.wire.requests, pss_bytes=int(pss_bytes[one.peer])
            ),
        )
        if one.peer in cpu_s and one.rate_per_s is None
        else one
        for one in seen.runs
    ]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(replace(seen, runs=runs))
    shown = captured.get().partition("What a request costs")[2]
    cells = {
        name.strip(): [cell.strip() for cell in rest]
        for name, *rest in (line.split("│")[1:-1] for line in shown.splitlines() if "│" in line)
    }

    assert cells[OURS] == ["2.0", "", "900"]
    assert cells[PROTOTYPE] == ["50.0", "25.0", "1200"]
    assert cells[PLAIN_FASTAPI] == ["-", "-", "-"]
    assert "…" not in shown


def test_an_interrupted_run_is_still_a_record(seen: PeersRecord) -> None:
    """Who has not had a turn has no numbers, and nothing breaks."""
    partial = replace(seen, runs=[seen.runs[0]], agreement={OURS: seen.agreement[OURS]})

    summary = partial.summary(PROTOTYPE, "queries")
    assert (summary["texts_per_s"], summary["times_texts_per_s"]) == (None, None)
    assert json.loads(json.dumps(partial.document()))["summary"]["queries"][OURS]["texts_per_s"]


@pytest.mark.parametrize(
    ("seen_run", "held"),
    [
        (wire(50), True),
        (wire(50, latency_ms=GOAL_MS), True),
        (wire(50, latency_ms=GOAL_MS + 0.1), False),
        (wire(50, failed=1), False),
        (wire(50, cpu_s=0.95), False),
        (wire(0), False),
    ],
    ids=["quick", "just", "slow", "refused", "client-bound", "nothing"],
)
def test_a_rate_holds_only_without_excuse(seen_run: WireRun, *, held: bool) -> None:
    """The p99 is within the goal, nothing was refused, and the client had a core to spare."""
    assert run(OURS, 0, seen_run, 50.0).tried(GOAL_MS).held is held


def test_the_search_ends_at_what_the_peer_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed loop, then at most as many rates as were asked; those it tries, it returns."""
    asked: list[float] = []

    def fake_open(*_: object, rate_per_s: float, **__: object) -> WireRun:
        asked.append(rate_per_s)
        return wire(50, latency_ms=10.0 if rate_per_s <= 70 else 1000.0)

    monkeypatch.setattr(measuring, "closed_loop", lambda *_, **__: wire(100))
    monkeypatch.setattr(measuring, "open_loop", fake_open)
    load = PeerLoad(peer=OURS, workload="queries", round=1, bodies=[], goal_ms=GOAL_MS)

    nobody = RunningServer(url="http://nobody", pid=os.getpid())
    closed, *tried = measure(nobody, load, PeersOptions(search_steps=6))

    assert closed.rate_per_s is None
    assert [one.rate_per_s for one in tried] == asked
    assert asked[0] == pytest.approx(80)
    assert len(asked) <= 6
    best = max(one.rate_per_s or 0 for one in tried if one.tried(GOAL_MS).held)
    assert 66 < best <= 70
