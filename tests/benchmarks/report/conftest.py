"""A record of every kind, as its benchmark writes it, and one of peers with some chance in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.core.record import CoreRecord
from benchmarks.knowing import CacheRecord
from benchmarks.offline.record import OfflineRecord, OfflineRound, Pass
from benchmarks.peers.checking import LabelAgreement
from benchmarks.peers.record import PeersRecord
from benchmarks.peers.runs import PeerRun, ServerCost
from benchmarks.record import machine, percentile, versions
from benchmarks.soak.record import SoakRecord
from benchmarks.soak.sampling import MemoryLook
from benchmarks.wire import Shot, WireRun

PEERS = {"miniml": 800.0, "prototype": 60.0, "plain-fastapi": 500.0}  # texts/s of the queries


@pytest.fixture
def peers_record() -> Callable[..., PeersRecord]:
    """A record as `bench peers` writes it: `peers_record(seed=0, slower=1.0)`, ours so many times slower."""
    return _peers_record


def _peers_record(*, seed: int = 0, slower: float = 1.0, seconds_s: float = 2.0) -> PeersRecord:
    chance = np.random.default_rng(seed)
    runs = [
        run
        for round_ in range(3)
        for workload, share in (("queries", 1.0), ("reviews", 0.2))
        for peer, rate in PEERS.items()
        for run in _peer_runs(
            chance,
            (peer, workload, round_),
            rate * share / (slower if peer == "miniml" else 1),
            seconds_s,
        )
    ]
    return PeersRecord(
        peers={name: f"a server called {name}" for name in PEERS},
        agreement={name: [LabelAgreement(agreed=63, asked=64)] for name in PEERS},
        runs=runs,
        goals_ms={"queries": 100.0, "reviews": 500.0},
        scenario={"cores": 2, "connections": 32, "rounds": 3, "seed": 0, "complete": True},
        package_digest="d" * 64,
        precision="int8-row-wise",
        machine={"cpu": "a CPU", "cores": 2, "memory_bytes": 8 << 30, "system": "Linux x86_64"},
        versions={"miniml": "0.1.0"},
        commit="abc1234",
        recorded_at="2026-01-01T00:00:00+00:00",
        package={"name": "demo", "base_model": "a/model", "gates": dict(GATES)},
    )


GATES = {
    "exam_rows": 140,
    "label_flip_rate": 0.007,
    "batch_flip_rate": 0.0,
    "fp32": {"accuracy": 0.65, "macro_f1": 0.644, "model_bytes": 91_000_000},
    "served": {"accuracy": 0.643, "macro_f1": 0.637, "model_bytes": 23_600_000},
}


def _peer_runs(
    chance: np.random.Generator, of: tuple[str, str, int], capacity_per_s: float, seconds_s: float
) -> Iterator[PeerRun]:
    """A closed loop of 32, then rates up to a little above the capacity. of: peer, workload, round."""
    peer, workload, round_ = of
    luck = capacity_per_s * chance.normal(1, 0.01)
    for share in (None, 0.4, 0.7, 0.9, 0.97, 1.1):
        rate = luck * (share or 1.0)
        count = max(int(rate * seconds_s), 5)
        sent_s = np.sort(chance.uniform(1.0, 1.0 + seconds_s, count))
        service_ms = 2e3 / luck
        if share is None:
            latency_ms = 32e3 / luck * chance.gamma(40, 1 / 40, count)
        else:
            wait_ms = service_ms * share / max(1 - share, 0.004)
            latency_ms = service_ms + wait_ms * chance.exponential(0.5, count)
        wire = WireRun(
            shots=tuple(
                Shot(
                    sent_s=round(float(at), 4), latency_ms=round(float(ms), 2), status=200, texts=1
                )
                for at, ms in zip(sent_s, latency_ms, strict=True)
            ),
            warmup_s=1.0,
            duration_s=seconds_s,
            requests=count,
            load_s=seconds_s + 1,
            client_cpu_s=0.1,
        )
        yield PeerRun(
            peer=peer,
            workload=workload,
            round=round_,
            rate_per_s=None if share is None else round(capacity_per_s * share, 3),
            wire=wire,
            cost=None if share else ServerCost(cpu_s=1e-3 * len(peer) * count, pss_bytes=10**9),
        )


def run_of(count: int, *, begin_s: float = 2.0) -> dict[str, Any]:
    """What a load client says of *count* requests in ten seconds; one in fifty is refused."""
    statuses = [503 if i % 50 == 0 else 200 for i in range(count)]
    rows = [
        [round(begin_s + 10 * i / count, 4), round(1.5 * i % 97 + 1, 3), status, 0.1]
        for i, status in enumerate(statuses)
    ]
    answered = sorted(row[1] for row in rows if row[2] == 200)
    return {
        "warmup_s": begin_s,
        "duration_s": 10.0,
        "partial": False,
        "samples": rows,
        "summary": {
            "requests": count,
            "errors": count - len(answered),
            "texts_per_s": round(2 * len(answered) / 10, 2),
            "p50_ms": percentile(answered, 50),
            "p99_ms": percentile(answered, 99),
        },
    }


def envelope(kind: str, **scenario: Any) -> dict[str, Any]:
    """What every record says."""
    return {
        "kind": kind,
        "schema_version": 1,
        "scenario": {"workload": "queries", "texts_per_call": 2, "seed": 3, **scenario},
        "package_digest": "d" * 64,
        "server": {"name": "demo"},
        "machine": machine(),
        "versions": versions(),
        "commit": "abc",
        "recorded_at": "2026-01-01T00:00:00+00:00",
    }


def a_load() -> dict[str, Any]:
    """As `bench load` writes it."""
    return {**envelope("load", users=4), "loop": "closed", "faults": [], **run_of(400)}


def an_slo() -> dict[str, Any]:
    """As `bench slo` writes it: 30 held, 40 held once, 50 did not."""
    tried = ((30.0, True), (50.0, False), (40.0, True), (40.0, False), (40.0, True))
    return {
        **envelope("slo"),
        "goal": {"p99_ms": 100.0, "errors": 0},
        "result": {
            "rate_per_s": 40.0,
            "texts_per_s": 80.0,
            "always_per_s": 30.0,
            "never_per_s": 50.0,
            "knee_per_s": 30.0,
            "settled": True,
        },
        "trials": [
            {"rate_per_s": rate, "held": held, "role": "search", **run_of(int(10 * rate))}
            for rate, held in tried
        ],
    }


def a_tuning() -> dict[str, Any]:
    """As `bench tune` writes it: two settings, of which one held."""
    setting = {"package": "demo", "lanes": 2, "threads": 1, "max_batch": 32, "max_queue_ms": 500.0}
    trial = {"rate_per_s": 40.0, "held": True, **run_of(400)}
    return {
        **envelope("tune"),
        "goal": {"p99_ms": 100.0, "errors": 0},
        "best": setting,
        "contests": [
            {"setting": setting, "stage": "lanes", "rate_per_s": 40.0, "trials": [trial]},
            {"setting": setting, "stage": "lanes", "rate_per_s": 0.0, "trials": []},
        ],
    }


def a_scaling() -> dict[str, Any]:
    """As `bench scaling` writes it, of no package: its own page shows it, the report nothing."""
    return {**envelope("scaling", replicas=10), "package_digest": "", "traces": {}, "runs": []}


def a_planning() -> dict[str, Any]:
    """As `bench planner` writes it: an open and a closed loop of two policies."""
    times = {
        "arrived_s": [i / 100 for i in range(500)],
        "queue_ms": [float(i % 7) for i in range(500)],
        "batch_ms": [3.5] * 500,
    }
    return {
        **envelope("planner", lanes=2, callers=32),
        "offline_texts_per_s": {"queries": 120.0},
        "runs": [
            {
                "workload": "queries",
                "loop": loop,
                "share_of_offline": share,
                "policy": policy,
                "parameter": "",
                **times,
            }
            for loop, share in (("open", 0.9), ("closed", None))
            for policy in ("ours", "first come")
        ],
    }


def a_comparison() -> dict[str, Any]:
    """As `bench backends` writes it: two variants of three rounds, one of them served, one missing."""
    layout = {"lanes": 2, "threads": 1}
    names = {"onnx-cpu fp32": 50.0, "onnx-cpu package: int8-row-wise": 120.0}
    cells = [[1, 32, [20.0, 21.0]], [8, 32, [150.0, 151.0]]]
    served = {
        "rate_per_s": None,
        "load_s": 12.0,
        "client_cpu_s": 0.2,
        "answered_after_warmup": [],
        **run_of(400),
    }
    return {
        **envelope("backends", connections=8),
        "missing": {"torch-cuda fp16": "this machine has no GPU that CUDA finds"},
        "answers": {name: {"asked": 64, "alone": 64, "together": 63} for name in names},
        "runs": [
            {"variant": name, "round": round_, "peak_rss_bytes": 2e8, "samples_ms": cells}
            for name in names
            for round_ in range(3)
        ],
        "speeds": [
            {
                "variant": name,
                "workload": "queries",
                "layout": layout,
                "batch": 8,
                "rates": [rate, rate + 1, rate - 1],
                "ceiling_texts_per_s": 2 * rate,
                "best_layout": best,
            }
            for name, rate in names.items()
            for best in (True, False)
        ],
        "http_runs": [
            {**served, "peer": "onnx-cpu package: int8-row-wise", "workload": "queries", "round": n}
            for n in range(3)
        ],
    }


def a_core() -> dict[str, Any]:
    """As `bench core` writes it: a ceiling and a closed loop."""
    record = CoreRecord(
        seen={
            "ceiling_batch_8_texts_per_s": {"queries": [200.0, 200.0, 220.0]},
            "closed_texts_per_s": {"queries": [150.0, 130.0, 110.0]},
            "server_cpu_ms": {"queries": [2.5, 2.5, 2.5]},
            "queue_rest_ms": {"queries": [i / 7 for i in range(500)]},
            "exact_texts": {"": [2000.0]},
            "exact_wrong": {"": [0.0]},
        },
        scenario={"workloads": ["queries"], "rounds": 3, "seed": 0},
        lanes={"count": 2, "threads": 1},
        package_digest="d" * 64,
        precision="int8-row-wise",
    )
    return record.document()


def an_engine() -> dict[str, Any]:
    """As `bench engine` writes it: three rounds of three backends."""
    return {
        **envelope("engine", texts=64, mean_tokens=30.5, threads=1, batch=1),
        "rates": {
            "package": [240.0, 250.0, 245.0],
            "plain ONNX fp32": [105.0, 106.0, 104.0],
            "transformers pipeline fp32": [57.0, 57.0, 57.0],
        },
        "gop_per_text": 0.7,
        "peak": {"gops": 449.0, "threads": 1, "how": "bare product"},
        "precision": "int8-row-wise",
    }


def a_cache() -> dict[str, Any]:
    """As `bench cache` writes it: two rounds of three ways."""
    rates = {"computed": [50.0, 52.0], "known": [900.0, 910.0], "zipf": [150.0, 160.0]}
    return CacheRecord(
        rates=rates,
        hit_shares=[0.7, 0.72],
        errors=0,
        scenario={
            "workload": "reviews",
            "connections": 32,
            "rounds": 2,
            "seconds": 6.0,
            "distinct": 10_000,
            "exponent": 1.1,
            "seed": 0,
        },
        package_digest="d" * 64,
    ).document()


def a_soak() -> dict[str, Any]:
    """As `bench soak` writes it: a hundred seconds in which nothing grew."""
    shots = tuple(
        Shot(sent_s=20 + n / 2, latency_ms=5.0 + n % 7, status=200, texts=1) for n in range(200)
    )
    run = WireRun(
        shots=shots, warmup_s=20.0, duration_s=100.0, requests=240, load_s=120, client_cpu_s=1.0
    )
    looks = [
        MemoryLook(
            at_s=float(at),
            own_bytes={"replica": 10**8, "GCS": 10**7},
            pss_bytes={"replica": 2 * 10**8},
        )
        for at in range(0, 120, 5)
    ]
    return SoakRecord(
        run=run,
        looks=looks,
        known_share=0.05,
        capacity_per_s=3.0,
        rate_per_s=2.0,
        scenario={"workload": "mixed", "minutes": 100 / 60, "share": 0.7, "seed": 0},
        package_digest="d" * 64,
    ).document()


def an_offline() -> dict[str, Any]:
    """As `bench offline` writes it: two rounds."""

    def seen(texts_per_s: float) -> Pass:
        return Pass(texts_per_s=texts_per_s, cpu_ms=1.0, run_s=50.0, load_1min=0.5)

    return OfflineRecord(
        rounds=[
            OfflineRound(before=seen(1000.0), offline=seen(rate), after=seen(980.0))
            for rate in (940.0, 950.0)
        ],
        scenario={"workload": "queries", "rows": 100_000, "lanes": 2, "rounds": 2, "seed": 0},
        package_digest="d" * 64,
        precision="int8-row-wise",
        package={"name": "demo", "base_model": "a/model", "gates": dict(GATES)},
    ).document()


DOCUMENTS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "load": a_load,
    "slo": an_slo,
    "tune": a_tuning,
    "planner": a_planning,
    "scaling": a_scaling,
    "soak": a_soak,
    "backends": a_comparison,
    "core": a_core,
    "engine": an_engine,
    "cache": a_cache,
    "offline": an_offline,
    "peers": lambda: _peers_record().document(),
}


@pytest.fixture
def document_of() -> Callable[[str], dict[str, Any]]:
    """`document_of("slo")`: read from the JSON that such a benchmark writes."""

    def read(kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(DOCUMENTS[kind]()))
        return found

    return read
