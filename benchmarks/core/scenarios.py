"""The loads of `miniml bench core`: each returns what it saw, by name; what that means, `measures` says.

A scenario knows the server by its URL and its processes, and the engine as another process.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.core.ceiling import ask_engine
from benchmarks.core.processes import replica_of
from benchmarks.load import fetch_info
from benchmarks.processes import pss_bytes, tree_cpu_s
from benchmarks.record import percentile
from benchmarks.wire import OK, Body, Shot, WireRun, closed_loop, open_loop, send_each_once
from benchmarks.workloads import WORKLOADS, call_bodies

Seen = dict[str, list[float]]
SATURATING, CALLERS, EXACT_CONNECTIONS = 32, 8, 64
CALL_TEXTS, OVERLOAD_TEXTS, OVERLOAD_CALLERS = 32, 8, 16
BATCHES = (1, 2, 4, 8, 16, 32)
LOAD_SHARE, OVERLOAD_TIMES = 0.8, 10
FLOAT_TOLERANCE = 1e-5  # of scores, for variants whose kernels may round differently in company
REFUSED = (429, 503)
# Three quarters of the 2 s that the server lets wait, since a machine has slower moments, which are not
# to be refusals; one caller alone would let the lanes idle.
_QUEUE_S, _LEAST_CALLERS = 1.5, 2
_BESIDE_S = 5.0  # that the bare engine runs before a server is measured, and after, at most
LOOP_LATE = "loop_late_p99_ms"  # of the server's event loop, in the minute before it is asked
_EXACT_TEXTS = 990  # of each workload; with the odd ones, 2,000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What every scenario needs to know. texts: workload -> its texts, in the order they are sent."""

    url: str
    pid: int
    package: Path
    exact: bool
    batched: bool
    lanes: int
    threads: int
    texts: Mapping[str, Sequence[str]]
    seconds_s: float
    warmup_s: float
    overload_s: float
    seed: int


def ceiling(stand: Stand, workload: str) -> Seen:
    """The bare engine's texts/s by batch size."""
    rates = _engine_rates(stand, workload, BATCHES if stand.batched else (1,))
    return {f"ceiling_batch_{batch}_texts_per_s": [rate] for batch, rate in rates.items()}


def beside(stand: Stand, workload: str, *, batch: int, when: str) -> Seen:
    """The bare engine's texts/s just *when*, before or after, a server is measured against it.

    A machine that others use is faster at one time than at another: what is compared must be near.
    """
    rates = _engine_rates(stand, workload, (batch,), least_s=min(stand.seconds_s / 2, _BESIDE_S))
    return {f"engine_{when}_texts_per_s": list(rates.values())}


def _engine_rates(
    stand: Stand, workload: str, batches: Sequence[int], *, least_s: float = 0.0
) -> Mapping[str, float]:
    """Batch size -> texts/s of the bare engine, on as many lanes as the server has."""
    rates: Mapping[str, float] = ask_engine(
        "rates",
        package=stand.package,
        lanes=stand.lanes,
        threads=stand.threads,
        texts=stand.texts[workload],
        batches=batches,
        least_s=least_s,
    )["rates"]
    return rates


def alone(stand: Stand, workload: str) -> Seen:
    """The bare engine's time for one text after another: the middle one, and CPU a text."""
    found = ask_engine(
        "alone",
        package=stand.package,
        lanes=1,
        threads=stand.threads,
        texts=stand.texts[workload],
    )
    return {
        "alone_median_ms": [statistics.median(found["times_ms"])],
        "engine_cpu_ms": [found["cpu_ms"]],
    }


def closed(stand: Stand, workload: str) -> Seen:
    """32 connections, a text a request; what the server's processes took; how full batches were."""
    before_s, model_before_s = tree_cpu_s(stand.pid), _model_cpu_s(stand)
    run = closed_run(stand, call_bodies(stand.texts[workload]), SATURATING)
    cpu_ms = (tree_cpu_s(stand.pid) - before_s) * 1e3 / run.requests
    model_cpu_ms = [
        (now_s - then_s) * 1e3 / run.requests
        for then_s, now_s in zip(model_before_s, _model_cpu_s(stand), strict=True)
    ]
    seen = {
        "closed_texts_per_s": [run.steady_texts_per_s],
        "closed_errors": [float(sum(run.errors.values()))],
        "server_cpu_ms": [cpu_ms],
        "model_cpu_ms": model_cpu_ms,
        "client_cpu_ms": [run.client_cpu_s * 1e3 / run.requests],
    }
    told = {"useful_token_ratio": "useful_token_ratio", LOOP_LATE: f"closed_{LOOP_LATE}"}
    return seen | server_says(stand.url, told)


def calls(stand: Stand, workload: str, engine_texts_per_s: float) -> Seen:
    """Calls of 32 texts, on as many connections as the server's queue takes with ease: 2 to 8."""
    bodies = call_bodies(stand.texts[workload], texts_per_call=CALL_TEXTS)
    queued = int(_QUEUE_S * engine_texts_per_s / CALL_TEXTS)
    connections = min(max(queued, _LEAST_CALLERS), CALLERS)
    run = closed_run(stand, bodies, connections)
    return {
        "calls_connections": [float(connections)],
        "calls_texts_per_s": [run.steady_texts_per_s],
        "calls_errors": [float(sum(run.errors.values()))],
    }


def light(stand: Stand, workload: str) -> Seen:
    """One connection: every text once and in order, as the engine alone had them."""
    run = send_each_once(stand.url, call_bodies(stand.texts[workload]), connections=1)
    return {"light_p50_ms": [run.percentile_ms(50)]}


def queue(stand: Stand, workload: str, closed_texts_per_s: float) -> Seen:
    """Arrivals at 80 % of the closed loop's rate: queue times of the longest tenth, of the rest."""
    texts = stand.texts[workload]
    run = open_loop(
        stand.url,
        call_bodies(texts),
        rate_per_s=LOAD_SHARE * closed_texts_per_s,
        warmup_s=stand.warmup_s,
        duration_s=stand.seconds_s,
        seed=stand.seed,
    )
    long_ms, rest_ms = split_queue_times(run, [len(text) for text in texts])
    return {"queue_longest_tenth_ms": long_ms, "queue_rest_ms": rest_ms}


def split_queue_times(run: WireRun, lengths: Sequence[int]) -> tuple[list[float], list[float]]:
    """Queue times in ms of the longest tenth of the bodies, and of the rest. lengths: a body each."""
    limit = percentile(lengths, 90)
    long_ms: list[float] = []
    rest_ms: list[float] = []
    for shot in run.shots:
        if shot.queue_ms is not None:
            (long_ms if lengths[shot.body] > limit else rest_ms).append(shot.queue_ms)
    return long_ms, rest_ms


def exact(stand: Stand) -> Seen:
    """2,000 mixed texts at 64 connections, half of them in calls of 8: answers that are wrong.

    Wrong is what is not the engine's answer for that text alone, and what is not answered.
    """
    texts = [*WORKLOADS["reviews"](_EXACT_TEXTS, stand.seed + 1), *_odd_texts()]
    texts += WORKLOADS["queries"](_EXACT_TEXTS, stand.seed + 1)
    texts = texts[::2] + texts[1::2]  # singles and calls get of both
    half = len(texts) // 2
    bodies = call_bodies(texts[:half], scores="all")
    bodies += call_bodies(texts[half:], texts_per_call=8, scores="all")
    shots, refused = _insist(stand.url, bodies)
    expected = ask_engine(
        "answers", package=stand.package, lanes=1, threads=stand.threads, texts=texts
    )["answers"]
    wrong = count_wrong(shots, bodies, expected, tolerance=0.0 if stand.exact else FLOAT_TOLERANCE)
    return {"exact_texts": [len(texts)], "exact_wrong": [wrong], "exact_refused_calls": [refused]}


def _insist(url: str, bodies: Sequence[Body]) -> tuple[list[Shot], int]:
    """Send every body, those that are refused again, as a client does; and how many refusals came.

    Gives up when a whole pass is refused.
    """
    shots: list[Shot] = []
    left, refusals = list(range(len(bodies))), 0
    while left:
        run = send_each_once(url, [bodies[i] for i in left], connections=EXACT_CONNECTIONS)
        shots += [replace(shot, body=left[shot.body]) for shot in run.shots]
        again = [left[shot.body] for shot in run.shots if shot.status in REFUSED]
        refusals += len(again)
        if len(again) == len(left):
            break
        left = sorted(again)
    return shots, refusals


def count_wrong(
    shots: Sequence[Shot],
    bodies: Sequence[Body],
    expected: Sequence[Sequence[object]],
    *,
    tolerance: float,
) -> int:
    """How many texts were not answered as *expected* ([label, score, scores] a text), exactly once."""
    answers: list[list[object]] = [[] for _ in expected]
    starts = [sum(body.texts for body in bodies[:place]) for place in range(len(bodies))]
    for shot in shots:
        if shot.status == OK and shot.answer is not None:
            document = json.loads(shot.answer)
            given = document if isinstance(document, list) else [document]
            for place, answer in enumerate(given[: shot.texts]):
                answers[starts[shot.body] + place].append(answer)
    return sum(
        len(given) != 1 or not _same(given[0], wanted, tolerance)
        for given, wanted in zip(answers, expected, strict=True)
    )


def _same(answer: object, expected: Sequence[object], tolerance: float) -> bool:
    label, _, scores = expected
    if not isinstance(answer, dict) or not isinstance(scores, Sequence):
        return False
    given = list((answer.get("scores") or {}).values())
    if len(given) != len(scores):
        return False
    apart = max(abs(a - b) for a, b in zip(given, scores, strict=True))
    # Where rounding is allowed, it may turn a tie.
    return apart <= tolerance and (tolerance > 0 or answer.get("label") == label)


def memory(stand: Stand) -> Seen:
    """Memory of the replica, and its model's file."""
    replica_mb = pss_bytes(replica_of(stand.pid).pid) / 1e6
    return {"replica_mb": [replica_mb], "model_mb": [_model_bytes(stand.package) / 1e6]}


PER_WORKLOAD: Mapping[str, Callable[[Stand, str], Seen]] = {
    "ceiling": ceiling,
    "closed": closed,
    "alone": alone,
    "light": light,
}


def _model_cpu_s(stand: Stand) -> list[float]:
    """CPU seconds of lanes and tokenizer so far, if the server says; of a lane's first thread only."""
    said = fetch_info(stand.url).get("now", {})
    known = stand.threads == 1 and "lanes_cpu_s" in said
    return [said["lanes_cpu_s"] + said["tokenize_cpu_s"]] if known else []


def server_says(url: str, names: Mapping[str, str]) -> Seen:
    """What the server says of itself now: its name -> ours; what it does not say is left out."""
    said = fetch_info(url).get("now", {})
    return {ours: [float(said[name])] for name, ours in names.items() if name in said}


def closed_run(stand: Stand, bodies: Sequence[Body], connections: int) -> WireRun:
    """A closed loop of the stand's seconds."""
    return closed_loop(
        stand.url,
        bodies,
        connections=connections,
        warmup_s=stand.warmup_s,
        duration_s=stand.seconds_s,
    )


def _model_bytes(package: Path) -> int:
    return sum(path.stat().st_size for path in package.glob("model.onnx*"))


def _odd_texts() -> list[str]:
    """What breaks those who count characters as bytes, or tokenize before they cut."""
    odd = [
        "Überraschend gut – und das für 3 €! 👩‍🍳",  # noqa: RUF001 - such dashes are sent
        "最高の一杯でした。また来ます。",
        "خدمة ممتازة جدا",
        "e\u0301 and \u00e9, one\u2028line",
        "a" * 5000,
        " \t\n x \r\n ",
        "\U0001f35c" * 300,
        "\u0000 control \u0007",
        "no spaces" + "-" * 3000,
        "very long " * 9000,
    ]
    return odd + [f"{text} {place}" for place, text in enumerate(odd)]
