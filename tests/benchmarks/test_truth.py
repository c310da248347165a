"""The lean client tells the truth about servers whose latency is known, on a clock that is ours.

Client and server share an event loop whose time passes only when nobody has anything to do. Their
sockets are real. So what the client reports can be held against arithmetic, to the microsecond, and a
minute takes a moment.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bottleneck import client_fault, rate_fault
from benchmarks.record import percentile
from benchmarks.samples import SampleFile, SampleReader, read_end
from benchmarks.schedule import Arrivals, Schedule
from benchmarks.wire import WireRun
from benchmarks.wire.__main__ import LOOPS
from benchmarks.wire.requests import post_requests
from benchmarks.wire.shots import run_of
from benchmarks.workloads import Body

PERCENTS = (1, 25, 50, 75, 90, 95, 99, 99.9, 100)
BASE_S, SLOW_S = 0.005, 0.2
STALL_EACH_S, STALL_S = 10.0, 1.0
BODIES = [Body(content=b'{"text": "%d"}' % number, texts=1) for number in range(1000)]
HoldS = Callable[[float, int], float]  # when it came, which body -> how long it is held


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time stands still while anything is to be done, then jumps to what is due next."""

    def __init__(self, path: Path) -> None:
        super().__init__(_Jump(self))
        self.now_s = 0.0
        self._path = str(path)

    def time(self) -> float:
        """Seconds, as all that runs on it sees them."""
        return self.now_s

    async def create_connection(  # type: ignore[override]
        self, factory: Any, *_: Any, **__: Any
    ) -> Any:
        """To the server on this loop; such sockets carry bytes without delay."""
        return await self.create_unix_connection(factory, self._path)


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        assert timeout is not None, "everybody waits for nothing"
        self._loop.now_s += timeout
        return []


def constant(_at_s: float, _body: int) -> float:
    """Every request takes as long."""
    return BASE_S


def bimodal(_at_s: float, body: int) -> float:
    """One in ten is slow."""
    return SLOW_S if body % 10 == 0 else BASE_S


def stalling(at_s: float, _body: int) -> float:
    """In the last second of every ten nothing is answered."""
    left_s = STALL_EACH_S - at_s % STALL_EACH_S
    return BASE_S + (left_s if left_s <= STALL_S else 0.0)


def load(folder: Path, hold_s: HoldS, job: Mapping[str, Any]) -> WireRun:
    """Run the client's own loop against a server that holds each request for *hold_s*."""
    loop = VirtualLoop(folder / "socket")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                content = await reader.readexactly(int(head.split(b"content-length: ")[1]))
                body = int(content[10:-2])
                await asyncio.sleep(hold_s(loop.time() - began_s(), body))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def began_s() -> float:
        return loads[0].end()["began_s"] if loads else 0.0

    loads: list[Any] = []

    async def run() -> None:
        server = await asyncio.start_unix_server(handle, folder / "socket", backlog=1024)
        content = b"".join(body.content for body in BODIES)
        sizes = [len(body.content) for body in BODIES]
        requests = post_requests(content, sizes, path="/predict", host="h", fresh=True)
        samples = SampleFile(folder)
        client = LOOPS[job["mode"]](
            {"host": "h", "port": 1, "drain_s": 30.0, **job}, requests, samples, clock=loop.time
        )
        loads.append(client)
        await client.connect()
        await client.run()
        samples.end(client.end() | {"clients": [client.client(0.0)]})
        server.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    end = read_end(folder)
    assert end is not None
    return run_of(
        SampleReader(folder).new_rows(),
        end,
        BODIES,
        warmup_s=job["warmup_s"],
        duration_s=job["duration_s"],
    )


def open_job(schedule: Schedule, connections: int = 512) -> dict[str, Any]:
    """The job of an open loop."""
    return {
        "mode": "open",
        "connections": connections,
        "schedule": asdict(schedule),
        "warmup_s": schedule.warmup_s,
        "duration_s": schedule.duration_s,
    }


def truth_ms(schedule: Schedule, hold_s: HoldS) -> list[float]:
    """What each request of the window takes from when it is due, by arithmetic alone."""
    return [
        1e3 * hold_s(at_s, place % len(BODIES))
        for place, at_s in enumerate(schedule.due_s())
        if at_s >= schedule.warmup_s
    ]


@pytest.mark.parametrize("hold_s", [constant, bimodal, stalling])
@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_percentiles_of_an_open_loop_are_the_truth(
    tmp_path: Path, hold_s: HoldS, arrivals: Arrivals
) -> None:
    """Every percentile is within 3 % or 1 ms of what the server did, stalls of a second included."""
    schedule = Schedule(rate_per_s=50, warmup_s=2, duration_s=40, arrivals=arrivals, seed=1)
    run = load(tmp_path, hold_s, open_job(schedule))
    true_ms = truth_ms(schedule, hold_s)

    assert len(run.shots) == len(true_ms) == 2000
    for percent in PERCENTS:
        expected = percentile(true_ms, percent)
        assert run.percentile_ms(percent) == pytest.approx(expected, rel=0.03, abs=1.0), percent
    assert rate_fault(run, 50) == ""
    assert run.sent_per_s == pytest.approx(50, rel=0.02)
    assert client_fault(run) == ""


def test_a_closed_loop_hides_the_stall_that_an_open_loop_shows(tmp_path: Path) -> None:
    """Of one second in ten without an answer, one caller meets three in half a minute; arrivals all."""
    schedule = Schedule(rate_per_s=50, warmup_s=0, duration_s=30)
    closed_folder, open_folder = tmp_path / "closed", tmp_path / "open"
    closed_folder.mkdir()
    open_folder.mkdir()
    job = {"mode": "closed", "connections": 1, "warmup_s": 0.0, "duration_s": 30.0}
    closed = load(closed_folder, stalling, job)
    opened = load(open_folder, stalling, open_job(schedule))

    assert sum(ms > 100 for ms in closed.latencies_ms) == 3
    assert closed.percentile_ms(99) == pytest.approx(1e3 * BASE_S, abs=0.1)
    late = sum(ms > 100 for ms in truth_ms(schedule, stalling))
    assert late > 0.07 * len(opened.shots)
    assert sum(ms > 100 for ms in opened.latencies_ms) == late
    assert opened.percentile_ms(99) > 800


@pytest.mark.parametrize("hold_s", [constant, bimodal, stalling])
def test_closed_latencies_are_what_each_caller_waited(tmp_path: Path, hold_s: HoldS) -> None:
    """In a closed loop every latency is one that the server can give, and callers never rest."""
    job = {"mode": "closed", "connections": 4, "warmup_s": 0.0, "duration_s": 12.0}
    run = load(tmp_path, hold_s, job)

    for shot in run.shots:
        assert shot.latency_ms == pytest.approx(1e3 * hold_s(shot.sent_s, shot.body), abs=0.1)
    busy_s = sum(min(shot.latency_ms / 1e3, 12.0 - shot.sent_s) for shot in run.shots)
    assert busy_s == pytest.approx(4 * 12.0, rel=0.01)


def test_a_rate_that_does_not_go_out_is_told(tmp_path: Path) -> None:
    """On two connections of 5 ms each, 400 of 800 requests a second go out, and the run says so."""
    schedule = Schedule(rate_per_s=800, warmup_s=1, duration_s=4)
    run = load(tmp_path, constant, open_job(schedule, connections=2))

    assert run.sent_per_s == pytest.approx(400, rel=0.02)
    assert "400" in rate_fault(run, 800)
    assert run.percentile_ms(50) > 1000, "who waits for a connection waits"
