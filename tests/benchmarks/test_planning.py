"""Laws of the planner's simulation: nothing is lost, nothing runs twice, each policy keeps its rule."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.errors import BadTrace, ImpossibleOption
from benchmarks.options import PlannerOptions
from benchmarks.planning.decisions import decision_times_ms
from benchmarks.planning.ours import Planned
from benchmarks.planning.page import render_page
from benchmarks.planning.policies import (
    OTHERS,
    FifoPadded,
    MakePolicy,
    RayBatch,
    SortAndCut,
    TokenBudget,
)
from benchmarks.planning.record import latencies_ms, texts_per_s
from benchmarks.planning.run import run_planner
from benchmarks.planning.simulator import Arrival, Policy, Replay, replay, replay_closed
from benchmarks.planning.trace import at_rate, made_arrivals, rate_per_s, read_arrivals
from benchmarks.planning.truth import Truth, offline_texts_per_s, smoothed, told_grid
from registry.artifact import staged
from serving.cost import GridCost
from serving.package import (
    CARD,
    CONFIG,
    COST,
    GATES,
    GOLDEN,
    MODEL,
    TOKENIZER,
    CostGrid,
    PackageConfig,
)

SLOW = settings(deadline=None, max_examples=50)
GRID = CostGrid(
    batches=(1, 2, 8),
    lengths=(8, 64, 256),
    ms=((2.0, 6.0, 30.0), (2.5, 10.0, 58.0), (6.0, 38.0, 230.0)),
    threads=1,
    machine="test",
)
POLICIES: dict[str, MakePolicy] = {
    "ours": partial(Planned, told_grid(GRID, seed=0)),
    **{f"{name} {p}": make for name, made in OTHERS.items() for p, make in made.items()},
}
loads = st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 256)), min_size=1, max_size=60)


def arrivals_of(load: Sequence[tuple[float, int]]) -> list[Arrival]:
    """Gaps and lengths as arrivals."""
    now_s, arrivals = 0.0, []
    for gap_s, tokens in load:
        now_s += gap_s
        arrivals.append(Arrival(arrived_s=now_s, tokens=tokens))
    return arrivals


def exact() -> Truth:
    """Without noise."""
    return Truth(GRID, seed=0, noise=0.0)


class Recorded:
    """A policy that keeps the batches of another."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.batches: list[list[int]] = []
        self.arrive, self.ran = policy.arrive, policy.ran
        self.wakes_s, self.wake = policy.wakes_s, policy.wake

    def next_batch(self, now_s: float, free_lanes: int) -> list[int]:
        """What the other says."""
        if batch := self._policy.next_batch(now_s, free_lanes):
            self.batches.append(batch)
        return batch


@pytest.mark.parametrize("policy", POLICIES)
@SLOW
@given(load=loads, lanes=st.integers(1, 4))
def test_every_text_runs_once_and_after_it_came(
    policy: str, load: list[tuple[float, int]], lanes: int
) -> None:
    """Under every policy each text is run exactly once, not before it came, at most 32 together."""
    seen = Recorded(POLICIES[policy]())
    result = replay(arrivals_of(load), seen, exact(), lanes=lanes)

    assert sorted(text for batch in seen.batches for text in batch) == list(range(len(load)))
    assert min(result.queue_ms) >= 0
    assert max(map(len, seen.batches)) <= 32
    assert result.batches == len(seen.batches)
    assert result.useful_tokens == sum(tokens for _, tokens in load) <= result.padded_tokens


@pytest.mark.parametrize("policy", POLICIES)
@SLOW
@given(load=loads, lanes=st.integers(1, 3))
def test_never_more_batches_at_once_than_lanes(
    policy: str, load: list[tuple[float, int]], lanes: int
) -> None:
    """At no time do more batches run than there are lanes."""
    result = replay(arrivals_of(load), POLICIES[policy](), exact(), lanes=lanes)
    runs = {
        (round(a + q / 1e3, 9), round(a + (q + b) / 1e3, 9))
        for a, q, b in zip(result.arrived_s, result.queue_ms, result.batch_ms, strict=True)
    }

    assert all(
        sum(start < begun + 1e-7 and begun + 1e-7 < end for start, end in runs) <= lanes
        for begun, _ in runs
    )


@pytest.mark.parametrize("policy", [name for name in POLICIES if "serve.batch" not in name])
@SLOW
@given(load=loads)
def test_who_pulls_leaves_no_lane_idle(policy: str, load: list[tuple[float, int]]) -> None:
    """With one lane, a text that waits does so only while another batch runs."""
    result = replay(arrivals_of(load), POLICIES[policy](), exact(), lanes=1)
    # Rounded: two texts of one batch started at one time, of which sums may differ in the last bit.
    spans = [
        (round(a, 9), round(a + q / 1e3, 9), round(a + (q + b) / 1e3, 9))
        for a, q, b in zip(result.arrived_s, result.queue_ms, result.batch_ms, strict=True)
    ]
    ends = {end for _, _, end in spans}

    assert all(
        start - came < 1e-8 or any(abs(start - end) < 1e-8 for end in ends)
        for came, start, _ in spans
    )


@SLOW
@given(load=loads, seed=st.integers(0, 3))
def test_a_replay_is_a_function_of_its_arguments(load: list[tuple[float, int]], seed: int) -> None:
    """The same arrivals, policy and seed give the same times, open and closed."""

    def results() -> list[Replay]:
        arrivals = arrivals_of(load)
        made = [POLICIES["ours"]() for _ in range(2)]
        return [
            replay(arrivals, made[0], Truth(GRID, seed=seed), lanes=2),
            replay_closed(arrivals, made[1], Truth(GRID, seed=seed), lanes=2, callers=4, seed=seed),
        ]

    assert results() == results()


@SLOW
@given(load=loads, callers=st.integers(1, 8))
def test_a_closed_loop_holds_its_callers(load: list[tuple[float, int]], callers: int) -> None:
    """At no time are more texts under way than there are callers."""
    policy = POLICIES["ours"]()
    result = replay_closed(arrivals_of(load), policy, exact(), lanes=2, callers=callers)
    spans = [
        (a, a + ms / 1e3) for a, ms in zip(result.arrived_s, latencies_ms(result), strict=True)
    ]

    assert all(sum(a <= at < end - 1e-9 for a, end in spans) <= callers for at, _ in spans)


def test_first_come_first_served_is_in_order() -> None:
    """FIFO policies start texts in the order they came."""
    arrivals = arrivals_of([(0.001, tokens) for tokens in (9, 200, 3, 80, 5, 250, 7)])
    for policy in (FifoPadded(3), TokenBudget(256), RayBatch(4, 0.01)):
        seen = Recorded(policy)
        replay(arrivals, seen, exact(), lanes=1)

        assert [text for batch in seen.batches for text in batch] == list(range(7))


@SLOW
@given(load=loads, budget=st.integers(1, 1024))
def test_a_budget_is_kept(load: list[tuple[float, int]], budget: int) -> None:
    """A batch of several is never padded beyond the budget, and what followed would not have fit."""
    seen = Recorded(TokenBudget(budget))
    arrivals = arrivals_of(load)
    replay(arrivals, seen, exact(), lanes=1)

    for batch in seen.batches:
        longest = max(arrivals[text].tokens for text in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_sort_and_cut_takes_all_that_waits() -> None:
    """What waited when it sorted runs shortest first, before anything that came later."""
    policy = SortAndCut(2)
    for text, tokens in enumerate((9, 200, 3, 80)):
        policy.arrive(text, tokens, 0.0)
    first = policy.next_batch(0.0, 1)
    policy.arrive(4, 1, 0.0)

    assert [first, policy.next_batch(0.0, 1), policy.next_batch(0.0, 1)] == [[2, 0], [3, 1], [4]]


def test_ray_seals_batches_that_no_lane_is_free_for() -> None:
    """While a batch runs, arrivals further apart than the timer are sealed alone and run alone."""
    seen = Recorded(RayBatch(32, 0.002))
    arrivals = arrivals_of([(0.0, 256), *[(0.005, 8)] * 4])
    replay(arrivals, seen, exact(), lanes=1)

    assert seen.batches == [[0], [1], [2], [3], [4]]


def test_ray_waits_for_its_timer_or_a_full_batch() -> None:
    """A text alone is started when the timer is over; a full batch at once."""
    alone = replay(arrivals_of([(1.0, 8)]), RayBatch(2, 0.01), exact(), lanes=1)
    full = replay(arrivals_of([(1.0, 8), (0.004, 8)]), RayBatch(2, 0.01), exact(), lanes=1)

    assert alone.queue_ms == pytest.approx((10.0,))
    assert full.queue_ms == pytest.approx((4.0, 0.0))


@SLOW
@given(st.lists(st.integers(1, 256), min_size=1, max_size=7), st.integers(1, 3))
def test_the_ceiling_is_the_cheapest_cut(tokens: list[int], lanes: int) -> None:
    """No way to cut the texts, sorted by length, into batches is cheaper than the ceiling's."""
    cost, ordered = GridCost(GRID), sorted(tokens)

    def cheapest(left: Sequence[int]) -> float:
        return min(
            (cost.ms(n, left[n - 1]) + cheapest(left[n:]) for n in range(1, len(left) + 1)),
            default=0.0,
        )

    expected = lanes * len(tokens) / cheapest(ordered) * 1e3
    assert offline_texts_per_s(tokens, GRID, lanes) == pytest.approx(expected)


@SLOW
@given(load=loads)
def test_nobody_beats_the_ceiling(load: list[tuple[float, int]]) -> None:
    """Without noise no policy is faster than the offline ceiling."""
    arrivals = [replace(arrival, arrived_s=0.0) for arrival in arrivals_of(load)]
    ceiling = offline_texts_per_s([arrival.tokens for arrival in arrivals], GRID, 1)

    for make in POLICIES.values():
        assert texts_per_s(replay(arrivals, make(), exact(), lanes=1)) <= ceiling * (1 + 1e-9)


@SLOW
@given(
    st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=30),
    st.floats(0.6, 1.2),
    st.floats(0.8, 1.4),
    st.floats(3.0, 10.0),
)
def test_smoothing_takes_the_bumps_out(
    bumps: list[float], by_batch: float, by_length: float, outlier: float
) -> None:
    """From a noisy grid with one cell far off, the surface comes nearer to the truth than the grid."""
    batches, lengths = (1, 2, 4, 8, 16), (8, 16, 32, 64, 128, 256)
    true = np.array([[0.1 * b**by_batch * n**by_length for n in lengths] for b in batches])
    seen = true * np.exp(np.array(bumps).reshape(true.shape))
    seen[2, 3] *= outlier
    grid = CostGrid(
        batches=batches,
        lengths=lengths,
        ms=tuple(map(tuple, seen.tolist())),
        threads=1,
        machine="test",
    )
    cost = GridCost(smoothed(grid))
    errors = np.log([[cost.ms(b, n) for n in lengths] for b in batches]) - np.log(true)

    assert np.abs(errors).mean() < max(0.02, np.abs(np.log(seen / true)).mean())


def words(texts: Sequence[str]) -> list[int]:
    """A token a word."""
    return [len(text.split()) for text in texts]


def test_equal_seeds_make_equal_arrivals() -> None:
    """A trace is repeated by its seed, and another rate changes its times and nothing else."""
    once, again = (made_arrivals("queries", 200, seed=3, count_tokens=words) for _ in range(2))
    faster = at_rate(once, 50.0)

    assert once == again
    assert rate_per_s(faster) == pytest.approx(50.0)
    assert [a.tokens for a in faster] == [a.tokens for a in once]


def test_arrivals_are_read_back(tmp_path: Path) -> None:
    """A .jsonl trace keeps its gaps and lengths; a record of ours gives times and its workload's."""
    lines = [{"arrived_s": 5.0 + gap, "tokens": n} for gap, n in ((0, 7), (1, 9), (3, 2))]
    jsonl = tmp_path / "trace.jsonl"
    jsonl.write_text("\n".join(map(json.dumps, lines)))
    record = tmp_path / "load.json"
    scenario = {"workload": "queries", "seed": 0}
    samples = [[2.0 + n / 10, 9.9, 1] for n in range(5)]
    record.write_text(json.dumps({"scenario": scenario, "samples": samples}))

    read = read_arrivals(jsonl, workload=None, count_tokens=words)
    recorded = read_arrivals(record, workload=None, count_tokens=words)

    assert [a.tokens for a in read] == [7, 9, 2]
    assert [b.arrived_s - a.arrived_s for a, b in pairwise(read)] == pytest.approx([1, 2])
    assert [b.arrived_s - a.arrived_s for a, b in pairwise(recorded)] == pytest.approx([0.1] * 4)
    assert all(2 <= a.tokens <= 79 for a in recorded)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"at": 1}', "arrived_s"),
        ("a.jsonl", "", "0 arrival"),
        ("a.jsonl", '{"arrived_s": 0, "tokens": 0}\n{"arrived_s": 1, "tokens": 5}', "0 tokens"),
        ("a.json", "[]", "no arrivals"),
        ("a.json", '{"samples": [[0, 1, 1]], "scenario": {"workload": "mine.txt"}}', "--workload"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    """A file without arrivals is refused with what was seen."""
    path = tmp_path / name
    path.write_text(content)

    with pytest.raises(BadTrace, match=said):
        read_arrivals(path, workload=None, count_tokens=words)


def test_a_decision_is_measured_each_round() -> None:
    """As many times as asked for, with deadlines and without."""
    for tight in (False, True):
        times_ms = decision_times_ms([8, 64], GRID, tight=tight, seed=0, rounds=2)

        assert len(times_ms) == 2
        assert min(times_ms) >= 0


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed, with a word-level tokenizer and a cost grid; its graph is never opened."""
    target = tmp_path_factory.mktemp("planning") / "package"
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = PackageConfig(
        name="tiny",
        task="single_label",
        text_pair=False,
        labels=("bad", "good"),
        max_length=128,
        pad_token_id=0,
        inputs=("input_ids", "attention_mask"),
        precision="fp32",
        batch_invariant=True,
        base_model="tiny",
    )
    with staged(target, kind="package", lineage={}) as folder:
        tokenizer.save(str(folder / TOKENIZER))
        (folder / CONFIG).write_bytes(config.to_bytes())
        (folder / COST).write_bytes(GRID.to_bytes())
        (folder / GATES).write_text("{}")
        for name in (MODEL, CARD, GOLDEN):
            (folder / name).write_text("")
    return target


@pytest.fixture
def bench(package: Path, tmp_path: Path) -> Callable[..., PlannerOptions]:
    """A small run of *package*, with further options."""
    return lambda **options: PlannerOptions(
        **{"package": str(package), "texts_count": 60, "output": tmp_path / "p.json", **options}
    )


def test_a_run_leaves_a_record_and_a_page(
    bench: Callable[..., PlannerOptions], tmp_path: Path
) -> None:
    """Every load of both workloads, ours first; percentiles follow from the samples kept."""
    record = run_planner(bench())
    document = json.loads((tmp_path / "p.json").read_text())
    page = (tmp_path / "p.html").read_text()

    assert document["kind"] == "planner"
    assert len(document["runs"]) == 2 * (4 + 1) * (1 + len(OTHERS))
    assert document["runs"][0]["policy"] == "ours"
    assert all(len(run["queue_ms"]) == 60 for run in document["runs"])
    assert page == render_page(record)
    assert page.count("<svg") == 6
    assert "http://" not in page.replace("http://www.w3.org", "")
    for run, kept in zip(record.runs, document["runs"], strict=True):
        found, slowest = record.summary(run), max(run.latencies_ms)
        assert kept["summary"] == json.loads(json.dumps(found))
        assert found["p50_ms"] <= found["p99_ms"] == pytest.approx(slowest, abs=0.01)
        assert not math.isnan(found["worst_wait_in_own_costs"])


def test_others_get_the_parameter_that_did_best(bench: Callable[..., PlannerOptions]) -> None:
    """No parameter that was tried had a lower p99, or in a closed loop a higher rate."""
    record = run_planner(bench(workload="queries"))

    for run in record.runs:
        best = min if run.loop == "open" else max
        assert run.tried[run.parameter] == best(run.tried.values())


def test_a_recorded_trace_is_replayed_as_it_was(
    bench: Callable[..., PlannerOptions], tmp_path: Path
) -> None:
    """One of the loads has the recorded rate."""
    path = tmp_path / "morning.jsonl"
    rows = [json.dumps({"arrived_s": n * 0.01, "tokens": 8 + n % 50}) for n in range(40)]
    path.write_text("\n".join(rows))
    record = run_planner(bench(trace=path))
    ceiling = record.offline_texts_per_s["morning"]

    assert record.tokens.keys() == {"morning"}
    assert any(
        run.share is not None and run.share * ceiling == pytest.approx(100.0, rel=0.01)
        for run in record.runs
    )


@pytest.mark.parametrize("wrong", [{"lanes": 0}, {"callers": 0}, {"texts_count": 3}])
def test_impossible_options_are_refused(
    bench: Callable[..., PlannerOptions], wrong: dict[str, int]
) -> None:
    """What cannot be simulated is refused before anything runs."""
    with pytest.raises(ImpossibleOption):
        run_planner(bench(**wrong))
