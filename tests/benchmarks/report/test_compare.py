"""A comparison sees what is there and nothing else: not chance, not another machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import ImpossibleOption, RecordsDiffer
from benchmarks.peers.record import PeersRecord
from benchmarks.report.comparing import compare_findings, differences, interval_of_ratio
from benchmarks.report.findings import Finding, Findings, GoalLine, Trial
from benchmarks.report.kinds import findings_of
from benchmarks.report.measured import Measured
from benchmarks.report.options import CompareOptions
from benchmarks.report.records import parse_record
from benchmarks.report.run import compare_records

Make = Callable[..., PeersRecord]
SECONDS_S, RATE = 30.0, 200


def found(record: PeersRecord) -> Findings:
    """What a record shows."""
    return findings_of(parse_record(json.loads(json.dumps(record.document())), "record"))


def verdicts(old: Findings, new: Findings) -> dict[str, str]:
    """By measure."""
    changes = compare_findings(old, new, tolerance=0.05)
    return {change.name: change.verdict for change in changes}


def loaded(
    latencies_ms: np.ndarray[Any, Any],
    sent_s: np.ndarray[Any, Any],
    begin_s: float = 0.0,
    duration_s: float = SECONDS_S,
) -> Findings:
    """One closed loop of one round, as `bench load` leaves it."""
    trial = Trial(
        round=0,
        rate_per_s=None,
        begin_s=begin_s,
        duration_s=duration_s,
        texts_per_s=len(sent_s) / duration_s,
        sent_s=tuple(sent_s.tolist()),
        latencies_ms=tuple(latencies_ms.tolist()),
        statuses=(200,) * len(sent_s),
    )
    finding = Finding(
        system="miniml",
        workload="queries",
        loop="closed",
        setting="8 connections",
        rates=(trial.texts_per_s,),
        trials=(trial,),
    )
    return Findings(findings=(finding,))


def slow_swings(seed: int) -> tuple[Any, Any]:
    """Latencies whose level wanders, so that neighbours are alike: (latencies_ms, sent_s)."""
    chance = np.random.default_rng(seed)
    sent_s = np.sort(chance.uniform(0, SECONDS_S, int(RATE * SECONDS_S)))
    level = np.interp(sent_s, np.arange(SECONDS_S + 1), chance.normal(0, 0.05, int(SECONDS_S) + 1))
    return 20 * np.exp(level + chance.normal(0, 0.2, len(sent_s))), sent_s


def test_a_record_is_the_same_as_itself(peers_record: Make) -> None:
    """Nothing differs from itself; every measure of ours is there, and none of a peer's."""
    seen = found(peers_record())
    said = verdicts(seen, seen)

    assert set(said.values()) == {"same"}
    assert len(said) == 11  # two workloads of texts/s, p50, p99, CPU and a highest rate; errors
    assert not any("prototype" in name for name in said)


def test_another_run_of_the_same_is_the_same(peers_record: Make) -> None:
    """Chance alone is no change."""
    said = verdicts(found(peers_record(seed=1)), found(peers_record(seed=2)))

    assert set(said.values()) == {"same"}


def test_slower_by_a_fifth_is_worse(peers_record: Make) -> None:
    """Rates and latencies of a server slowed by 20 % are worse, of one made faster better."""
    usual, slowed = found(peers_record(seed=1)), found(peers_record(seed=2, slower=1.25))
    down, up = verdicts(usual, slowed), verdicts(slowed, usual)
    rates = [name for name in down if "texts/s" in name]

    assert len(rates) == 2
    assert all(down[name] == "worse" and up[name] == "better" for name in rates)
    assert all(down[name] == "worse" for name in down if "p50" in name)


@pytest.mark.parametrize("seed", range(8))
def test_two_halves_of_a_load_are_the_same(seed: int) -> None:
    """Latencies that wander are no change between the first half of a load and the second."""
    latencies_ms, sent_s = slow_swings(seed)
    middle_s = SECONDS_S / 2
    first, second = (
        loaded(latencies_ms[part], sent_s[part], begin_s, middle_s)
        for part, begin_s in ((sent_s < middle_s, 0.0), (sent_s >= middle_s, middle_s))
    )

    assert set(verdicts(first, second).values()) == {"same"}


def test_a_slower_load_of_one_round_is_worse() -> None:
    """Blocks of time show what one round alone could not."""
    (old_ms, old_s), (new_ms, new_s) = slow_swings(1), slow_swings(2)
    said = verdicts(loaded(old_ms, old_s), loaded(1.2 * new_ms, new_s))

    assert {name.split(": ")[-1]: verdict for name, verdict in said.items()} == {
        "texts/s": "same",
        "p50 ms": "worse",
        "p99 ms": "worse",
        "requests not answered with 200, %": "same",
    }


def test_one_value_is_no_evidence() -> None:
    """Without rounds and without samples there is a ratio and no verdict."""
    old, new = (
        Findings(
            goal_lines=(
                GoalLine(
                    name="start, s", workload="", values=(value,), less_is_better=True,
                    goal=4.0, held=True,
                ),
            )
        )
        for value in (2.0, 3.0)
    )  # fmt: skip
    change = compare_findings(old, new, tolerance=0.05)[0]

    assert (change.ratio, change.low, change.verdict) == (1.5, None, "unsure")


def test_the_first_wrong_answer_is_worse() -> None:
    """Where there was none, one is a regression, although there is no ratio."""
    none, one = (
        Findings(
            goal_lines=(
                GoalLine(
                    name="wrong answers", workload="", values=(value,), less_is_better=True,
                    goal=0.0, held=value == 0,
                ),
            )
        )
        for value in (0.0, 1.0)
    )  # fmt: skip

    assert verdicts(none, none)["wrong answers"] == "same"
    assert verdicts(none, one)["wrong answers"] == "worse"


def test_errors_are_a_change(peers_record: Make) -> None:
    """A server that begins to refuse is worse, however fast it refuses."""
    seen = found(peers_record())
    first = seen.findings[0]
    trials = tuple(replace(trial, statuses=(503, *trial.statuses[1:])) for trial in first.trials)
    trials = tuple(
        replace(
            trial, statuses=tuple(503 if n % 50 == 0 else 200 for n in range(len(trial.sent_s)))
        )
        for trial in trials
    )
    refusing = replace(seen, findings=(replace(first, trials=trials), *seen.findings[1:]))

    assert verdicts(seen, refusing)["requests not answered with 200, %"] == "worse"


def test_intervals_cover_the_truth() -> None:
    """Of 200 pairs of three rounds each without a difference, about 95 % of intervals hold 1."""
    chance = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        old, new = (
            Measured(
                name="m",
                units=tuple(np.array([v]) for v in chance.lognormal(0, 0.05, 3)),
                less_is_better=False,
            )
            for _ in range(2)
        )
        interval = interval_of_ratio(old, new, 0.95)
        assert interval is not None
        covered += interval[0] <= 1 <= interval[1]

    assert covered >= 170  # three rounds against three cannot do better than 9 in 10


def test_other_machines_and_scenarios_do_not_compare(peers_record: Make, tmp_path: Path) -> None:
    """Refused with what differs, compared with --anyway, which says it again."""
    old = peers_record()
    new = replace(
        old,
        machine={**old.machine, "cores": 4},
        scenario={**old.scenario, "connections": 64, "complete": False},
    )
    paths = [record.write(tmp_path / f"{n}.json") for n, record in enumerate((old, new))]
    options = CompareOptions(record=paths[1], against=paths[0])
    with pytest.raises(RecordsDiffer, match=r"cores: 2 and 4.*connections: 32 and 64.*cut short"):
        compare_records(options)

    forced = compare_records(replace(options, anyway=True))
    assert len(forced.apart) == 3


def test_what_was_not_asked_for_is_no_difference(peers_record: Make) -> None:
    """Commit, package and versions are what is compared, not what keeps two apart."""
    old = peers_record()
    new = replace(old, commit="other", package_digest="e" * 64, versions={"miniml": "9"})
    certificates = [parse_record(r.document(), "r").certificate for r in (old, new)]

    assert differences(*certificates) == ()


def test_a_negative_tolerance_is_refused() -> None:
    """It would make worse what is better."""
    with pytest.raises(ImpossibleOption, match="tolerance"):
        compare_records(CompareOptions(record=Path("a"), against=Path("b"), tolerance_percent=-1.0))


@pytest.mark.parametrize(("slower", "code"), [(1.0, 0), (1.25, 1)])
def test_the_command_fails_on_a_regression(
    peers_record: Make, tmp_path: Path, slower: float, code: int
) -> None:
    """`bench compare` shows its verdicts and exits 1 when something became worse, else 0."""
    peers_record(seed=1).write(tmp_path / "old.json")
    peers_record(seed=2, slower=slower).write(tmp_path / "new.json")
    command = ["bench", "compare", str(tmp_path / "new.json"), "--against"]
    result = subprocess.run(
        [sys.executable, "-m", "miniml", *command, str(tmp_path / "old.json"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    document = json.loads(result.stdout.splitlines()[-1])

    assert result.returncode == code, result.stderr
    assert (document["worse"] > 0) is bool(code)
