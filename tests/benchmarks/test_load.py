"""Both clients over real sockets: no time hidden, none invented, and what stops them is one sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.errors import ServerUnreachable
from benchmarks.load.record import LoadRecord
from benchmarks.load.run import run_load
from benchmarks.locusts.driving import LocustLoad, locust_loop
from benchmarks.options import LoadOptions
from benchmarks.record import percentile
from benchmarks.schedule import Schedule, Shape
from benchmarks.wire import WireRun, scheduled_loop
from benchmarks.workloads import Body

Synthetics = Callable[..., AbstractContextManager[Any]]
ROOT = Path(__file__).parents[2]
BODIES = [Body(content=b'{"text": "number %d"}' % number, texts=1) for number in range(400)]
STALL_S = (1.0, 1.5)


class Deaf:
    """Watches nothing."""

    def see(self, rows: Any) -> None:
        """Look away."""


def bimodal_with_a_stall(number: int, since_s: float) -> float:
    """One in ten is slow, and for half a second nobody is answered."""
    stall_s = max(STALL_S[1] - since_s, 0.0) if since_s >= STALL_S[0] else 0.0
    return stall_s + (0.08 if number % 10 == 0 else 0.02)


def open_run(client: str, url: str, schedule: Schedule) -> WireRun:
    """The schedule, sent by *client*: the lean one, or Locust in so many processes."""
    if client == "wire":
        return scheduled_loop(url, BODIES, schedule)
    processes = int(client.removeprefix("locust "))
    return locust_loop(
        LocustLoad(
            url=url,
            users=64,
            rate_per_s=schedule.rate_per_s,
            arrivals=schedule.arrivals,
            shape=schedule.shape,
            warmup_s=schedule.warmup_s,
            duration_s=schedule.duration_s,
            drain_s=30.0,
            seed=schedule.seed,
            processes=processes,
        ),
        BODIES,
        Deaf(),
    )


@pytest.mark.parametrize("client", ["wire", "locust 1", "locust 2"])
def test_latency_is_what_the_server_did_since_it_was_due(
    synthetic: Synthetics, client: str
) -> None:
    """Against the server's own log, no request is faster than it was, and percentiles are its own.

    They may be off by 3 % or 1 ms, and by as much as the client says that its clock was late.
    """
    schedule = Schedule(rate_per_s=60, warmup_s=0.5, duration_s=2.5, seed=5)
    with synthetic(hold_s=bimodal_with_a_stall) as server:
        run = open_run(client, server.url, schedule)
    done_s = {served.content: served.done_s for served in server.log}
    true_ms = [
        1e3 * (done_s[BODIES[shot.body].content] - run.began_s - shot.sent_s) for shot in run.shots
    ]

    assert [shot.sent_s for shot in run.shots] == [at for at in schedule.due_s() if at >= 0.5]
    assert run.errors == {}
    assert server.came == run.requests == 180
    for shot, true in zip(run.shots, true_ms, strict=True):
        assert shot.latency_ms >= true - 0.01
    late_ms = max(lag for process in run.clients for lag in process.lags_ms)
    for percent in (50, 90, 95, 99):
        off_ms = run.percentile_ms(percent) - percentile(true_ms, percent)
        assert off_ms <= max(1.0, 0.03 * percentile(true_ms, percent)) + max(late_ms, 0.0), percent
    stalled = sum(served.done_s - served.came_s > 0.12 for served in server.log)
    assert stalled >= 5, "arrivals go on while nobody is answered"
    assert sum(shot.latency_ms > 120 for shot in run.shots) >= stalled


@pytest.mark.parametrize("shape", ["steady", "ramp", "steps"])
def test_a_closed_loop_has_as_many_users_as_asked(synthetic: Synthetics, shape: Shape) -> None:
    """A user has one request at a time, in one process or two, and the last level is reached."""
    users = 6
    with synthetic(hold_s=lambda *_: 0.03) as server:
        record = run_load(
            LoadOptions(
                url=server.url,
                users=users,
                shape=shape,
                workload="queries",
                duration_s=5.0 if shape != "steady" else 1.0,
                warmup_s=0.0,
                processes=2 if shape == "steady" else 1,
            )
        )
    events = [(served.came_s, 1) for served in server.log]
    events += [(served.done_s, -1) for served in server.log]
    under_way = most = 0
    for _, change in sorted(events):
        under_way += change
        most = max(most, under_way)

    assert most == users
    assert record.run.errors == {}
    assert min(record.run.latencies_ms) >= 30
    assert record.scenario["users"] == users
    assert len(record.run.clients) == (2 if shape == "steady" else 1)
    assert [stage.last for stage, _ in record.stages][-1] == pytest.approx(users, rel=0.01)


def test_the_record_holds_all_that_was_measured(synthetic: Synthetics, tmp_path: Path) -> None:
    """Every request of the window is in the file, refused ones by their status, and add up."""
    path = tmp_path / "deep" / "record.json"
    with synthetic(status=lambda number: 429 if number % 4 == 0 else 200) as server:
        record = run_load(
            LoadOptions(
                url=server.url,
                client="wire",
                rate_per_s=100,
                workload="mixed",
                texts_per_call=3,
                duration_s=1.0,
                warmup_s=0.2,
                output=path,
            )
        )
    document = json.loads(path.read_text())

    assert document["kind"] == "load"
    assert document["loop"] == "open"
    assert document["package_digest"] == "d" * 64
    assert document["partial"] is False
    assert len(document["samples"]) == document["summary"]["requests"] == 100
    assert server.came == 120
    refused = sum(status == 429 for _, _, status, _ in document["samples"])
    assert refused == document["summary"]["errors_by_status"]["429"] > 0
    ok_ms = [ms for _, ms, status, _ in document["samples"] if status == 200]
    assert document["summary"]["p99_ms"] == percentile(ok_ms, 99)
    assert len(json.loads(server.log[0].content)["texts"]) == 3
    assert isinstance(record, LoadRecord)
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("client", ["wire", "locust"])
def test_ctrl_c_leaves_a_partial_record(synthetic: Synthetics, tmp_path: Path, client: str) -> None:
    """Interrupted, a load leaves a valid record of what it saw, marked as partial, and exits 130."""
    path = tmp_path / "record.json"
    with synthetic(hold_s=lambda *_: 0.01) as server:
        command = [sys.executable, "-m", "miniml", "bench", "load", "--url", server.url]
        command += ["--client", client, "--rate-per-s", "100", "--duration-s", "300"]
        command += ["--warmup-s", "0", "--workload", "queries", "--output", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while len(server.log) < 150:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    document = json.loads(path.read_text())

    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert document["partial"] is True
    assert 100 <= len(document["samples"]) <= server.came
    assert 0 < document["duration_s"] < 300
    assert document["summary"]["p50_ms"] >= 10
    assert any("Interrupted after" in fault for fault in document["faults"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["load", "--rate-per-s", "0"], "--rate-per-s is 0"),
        (["load", "--rate-per-s", "-3"], "--rate-per-s is -3"),
        (["load", "--rate-per-s", "inf"], "--rate-per-s is inf"),
        (["load", "--users", "0"], "--users is 0"),
        (["load", "--duration-s", "0"], "--duration-s must be above 0"),
        (["load", "--texts-per-call", "65"], "give 1 to 64"),
        (["load", "--texts", "EMPTY"], "holds no text"),
        (["load", "--client", "wire", "--shape", "ramp"], "steady closed loop only"),
        (["load", "--client", "wire", "--processes", "2"], "is one process"),
        (["load", "--client", "wire", "--users", "1000"], "need 1064 open files"),
        (["load", "--users", "1000"], "need 1064 open files"),
        (["slo", "--p99-ms", "0"], "a goal is above 0"),
        (["slo", "--p99-ms", "1", "--trial-s", "1"], "No rate keeps a p99 of 1 ms"),
        (["slo", "--texts", "EMPTY"], "holds no text"),
        (["slo", "--p99-ms", "9000"], "need 576 open files"),
        (["tune", "--budget-minutes", "0"], "--budget-minutes and --trial-s must be above 0"),
        (["tune", "--package", "nothing"], "nothing"),
        (["tune", "--write-config", "EMPTY"], "is there already"),
        (["tune", "--write-config", "nowhere/serve.yaml"], "is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_sentence(
    synthetic: Synthetics, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """Options that cannot be, goals that nobody keeps, files that may not be opened: exit code 1."""
    empty = tmp_path / "empty.txt"
    empty.touch()
    arguments = [str(empty) if word == "EMPTY" else word for word in arguments]
    with synthetic(hold_s=lambda *_: 0.005) as server:
        url = [] if arguments[0] == "tune" else ["--url", server.url]
        command = [sys.executable, "-m", "miniml", "bench", *arguments, *url]
        limited = ["bash", "-c", 'ulimit -n 500; exec "$@"', "bash", *command]
        result = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=120)
    message = " ".join(result.stderr.split())

    assert result.returncode == 1
    assert "Error:" in message
    assert words in message
    assert "Traceback" not in message
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "No miniml endpoint answers at http://127.0.0.1:9"),
        ("127.0.0.1", "'127.0.0.1' is no address"),
        ("localhost:8000", "'localhost:8000' is no address"),
        ("http://", "'http://' is no address"),
        ("http://127.0.0.1:notaport", "'http://127.0.0.1:notaport' is no address"),
        ("http://127.0.0.1:99999", "'http://127.0.0.1:99999' is no address"),
    ],
)
@pytest.mark.parametrize("verb", ["load", "slo"])
def test_a_wrong_url_is_one_sentence(verb: str, url: str, words: str) -> None:
    """Nobody there, or no address at all: the message names what was given."""
    command = [sys.executable, "-m", "miniml", "bench", verb, "--url", url]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    message = " ".join(result.stderr.split())

    assert result.returncode == 1
    assert message.startswith("Error: ")
    assert words in message
    assert "Traceback" not in message


def test_a_server_of_another_kind_is_one_sentence(synthetic: Synthetics) -> None:
    """Who answers at /info, but not as a miniml endpoint does, is told from one."""
    with synthetic(info={"version": 3}) as server, pytest.raises(ServerUnreachable) as raised:
        run_load(LoadOptions(url=server.url))

    assert server.url in str(raised.value)
    assert "package_digest" in str(raised.value)


def test_a_server_that_refuses_all_is_told_with_its_status(synthetic: Synthetics) -> None:
    """When nothing is answered with 200 there is no record but the statuses that came."""
    with synthetic(status=lambda _: 422) as server:
        command = [sys.executable, "-m", "miniml", "bench", "load", "--url", server.url]
        command += ["--client", "wire", "--duration-s", "0.5", "--warmup-s", "0"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert result.returncode == 1
    assert "422" in result.stderr
    assert not list(Path(os.environ["MINIML_HOME"]).glob("bench/*"))


def test_ctrl_c_is_not_swallowed(synthetic: Synthetics) -> None:
    """Who does not ask for what was seen so far is interrupted like any other code."""
    code = (
        "import sys; from benchmarks.wire import Body, closed_loop;"
        'closed_loop(sys.argv[1], [Body(content=b"{}", texts=1)], connections=1, warmup_s=0,'
        " duration_s=300)"
    )
    with synthetic(hold_s=lambda *_: 0.01) as server:
        command = [sys.executable, "-c", code, server.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while len(server.log) < 10:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT
    assert said.splitlines()[-1] == "KeyboardInterrupt"


def test_locusts_own_page_starts_an_open_loop(synthetic: Synthetics) -> None:
    """The locustfile alone, with Locust's page: asked for 40 requests at 50 a second, it sends them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    with synthetic(hold_s=lambda *_: 0.03) as server:
        command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py"]
        command += ["--host", server.url, "--web-host", "127.0.0.1", "--web-port", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            form = _when(process, lambda: httpx.get(page).text)
            asked = {"user_count": 16, "spawn_rate": 16, "host": server.url, "seed": 1}
            asked |= {"rate_per_s": 50, "duration_s": 0.8, "warmup_s": 0, "workload": "queries"}
            assert httpx.post(f"{page}/swarm", data=asked).json()["success"]

            def stopped() -> dict[str, Any] | None:
                told: dict[str, Any] = httpx.get(f"{page}/stats/requests").json()
                return told if told["state"] == "stopped" else None

            told = _when(process, stopped)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    totals = next(row for row in told["stats"] if row["name"] == "Aggregated")

    assert "rate_per_s" in form
    assert server.came == totals["num_requests"] == 40
    assert totals["num_failures"] == 0
    assert totals["min_response_time"] >= 30


def _when(process: subprocess.Popen[str], found: Callable[[], Any]) -> Any:
    """What *found* gives as soon as it gives something."""
    while True:
        assert process.poll() is None, process.communicate()[1]
        try:
            if value := found():
                return value
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
